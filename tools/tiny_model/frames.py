"""Whole sentences of a request with slots in them (`phrase_lists/training.txt`, `held_out*.txt`).

Slots: `{do}` `{doing}` an action with device and room, `{do_it}` with a pronoun, `{do_the}`
`{doing_the}` with the device alone (the sentence then names the room as `{r}`); `{np}` device and
room, `{d}` `{r}` the bare words; `{state}` what the device is afterwards; `{be}` `{has}` `{needs}`
`{it}` agree with the device.

`HELD_OUT` is for measuring only. No training prompt is built from one of its sentences, and
`dataset.conversations` drops any in which one occurs by chance.
"""

from __future__ import annotations

from tools.tiny_model.phrases import lines

TRAINING = lines("training")
FRESH = lines("held_out_fresh")
"""Held-out sentences that no earlier model was tried on while the grammar was being written."""
HELD_OUT = lines("held_out") + FRESH
