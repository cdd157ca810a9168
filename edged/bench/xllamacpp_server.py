"""llama.cpp's own server, as xllamacpp brings it, in a process of its own.

``python -m edged.bench.xllamacpp_server`` reads a line of JSON (``model``, ``ctx``, ``slots``,
``threads``, ``kv_type``), loads, says in a line where it listens and how it was built, and ends
with its stdin.
"""

import json
import os
import sys

import xllamacpp


def main() -> None:
    """See the module."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = order["model"]
    params.n_ctx = order["ctx"] * order["slots"]
    params.n_parallel = order["slots"]
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{order['kv_type'].upper()}")
    params.cache_type_k = params.cache_type_v = kv_type
    params.kv_unified = False  # so every slot has as much as edged's
    params.fit_params = False  # it would change what we ask for
    params.cache_ram_mib = 0  # no prompt here is ever repeated, so keeping them only costs time
    params.force_pure_content_parser = True  # random weights say things that look like calls
    params.ui = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    if order["threads"] is not None:
        params.cpuparams.n_threads = order["threads"]
        params.cpuparams_batch.n_threads = order["threads"]
    server = xllamacpp.Server(params)
    flags = xllamacpp.get_system_info().strip()
    facts = {
        "version": xllamacpp.__version__,
        "build": f"{flags} {xllamacpp.BUILD_INFO['compiler']}",
    }
    print(
        json.dumps({"address": server.listening_address, "facts": facts}), file=replies, flush=True
    )
    sys.stdin.read()


if __name__ == "__main__":
    main()
