"""Builds the compiled core with CMake. Everything else is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Runs CMake, which puts the modules where setuptools expects them.

    The environment variable CAUSALVAE_FAST_CUDA (AUTO, ON or OFF) decides about the CUDA module.
    """

    def run(self) -> None:
        package = Path(self.get_ext_fullpath("causalvae_fast._cpu")).parent.resolve()
        # Not self.build_temp, which an editable installation throws away: `make build` goes on from it.
        build = ROOT / "build" / f"{self.plat_name}-{sys.implementation.cache_tag}"
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DPython_EXECUTABLE={sys.executable}",
            # Named anew each time: those of an isolated build are gone when the next one starts.
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCAUSALVAE_FAST_MODULE_DIR={package}",
            f"-DCAUSALVAE_FAST_CUDA={os.environ.get('CAUSALVAE_FAST_CUDA', 'AUTO')}",
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(
    # The sources are CMake's affair; the extension makes setuptools build a wheel for this platform.
    ext_modules=[Extension("causalvae_fast._cpu", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
