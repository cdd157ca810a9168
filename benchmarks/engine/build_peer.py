"""`python -m benchmarks.engine.build_peer FOLDER`: llama.cpp's own server, built for this machine.

Its source comes with the source distribution of llama-cpp-python, in the version that edged uses,
so that both sides have the same kernels and the same flags. Needs cmake, a compiler, and some ten
minutes on two cores; put FOLDER/bin on the path afterwards.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

TARGET = "llama-server"
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--jobs", default=2, show_default=True)
def main(folder: Path, jobs: int) -> None:
    """Fetch the source, and build the server into FOLDER/bin."""
    package = f"llama-cpp-python=={version('llama-cpp-python')}"
    with tempfile.TemporaryDirectory() as name:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", name, package], check=True)
        (archive,) = Path(name).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(name, filter="data")
        (source,) = Path(name).glob("*/vendor/llama.cpp")
        build = folder / "build"
        subprocess.run(["cmake", "-S", source, "-B", build, *FLAGS], check=True)
        command = ["cmake", "--build", build, "--target", TARGET, "--parallel", str(jobs)]
        subprocess.run(command, check=True)
    (folder / "bin").mkdir(exist_ok=True)
    (build / "bin" / TARGET).replace(folder / "bin" / TARGET)
    click.echo(f"built {folder / 'bin' / TARGET}; put {folder / 'bin'} on the path")


if __name__ == "__main__":
    main()
