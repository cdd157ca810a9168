"""What a node calls itself towards a broker's sessions."""

import hashlib
import hmac
from pathlib import Path

_PURPOSE = b"edged: MQTT client id"
_DIGEST_CHARACTERS = 16


def client_id(node: str, root: Path = Path("/")) -> str:
    """A node's MQTT client id: the same at every start, and nobody else's guess.

    A broker hands a session, and the prompts that wait in it, to whoever comes with its client
    id and an account of any kind. So there is a digest in it, keyed with the machine's id, which
    should not leave the machine itself (machine-id(5)). Where there is none, it is the name alone.
    """
    try:
        machine_id = (root / "etc/machine-id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine_id = ""
    if not machine_id:
        return f"edged-{node}"
    digest = hmac.new(machine_id.encode(), _PURPOSE + node.encode(), hashlib.sha256).hexdigest()
    return f"edged-{node}-{digest[:_DIGEST_CHARACTERS]}"
