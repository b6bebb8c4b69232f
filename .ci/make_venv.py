"""Make .venv, or complete the one that is there: `python3 .ci/make_venv.py .venv torch==2.13.0`.

Runs before anything is installed, on whatever Python there is, so it uses the standard library and old syntax only.
What is already installed is kept, so an environment made by other means works, without a network too.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(venv, torch):
    if sys.version_info < (3, 10):
        stop("Python 3.10 or newer is needed, this is %d.%d: make PYTHON=python3.11 venv" % sys.version_info[:2])
    python = os.path.join(venv, "bin", "python")
    if not works(python, "import sys"):
        make(venv)
    missing = missing_packages(python)
    if not missing:
        return
    print("Installing into %s: %s" % (venv, ", ".join(missing)), flush=True)
    if not works(python, "import pip") and not run(python, "-m", "ensurepip"):
        stop("%s has no pip and none can be put there: delete it, then on Debian or Ubuntu: %s" % (venv, APT))
    # First and by itself: the plain requirement torch>=2.10 would choose for itself which build to take.
    if "torch" in missing and not run(python, "-m", "pip", "install", torch):
        stop("pip could not install %s (see above). Is there a network, and 2 GB of room?" % torch)
    if not run(python, "-m", "pip", "install", "-e", ROOT + "[dev]"):
        stop("pip could not install the packages of pyproject.toml (see above). Is there a network?")


APT = "sudo apt-get install python3-venv python3-pip"


def make(venv):
    print("Making %s with Python %d.%d.%d" % ((venv,) + sys.version_info[:3]), flush=True)
    if not works(sys.executable, "import venv, ensurepip"):
        stop("this Python cannot make virtual environments. On Debian or Ubuntu: %s" % APT)
    if not run(sys.executable, "-m", "venv", "--clear", venv):
        stop("%s could not be made (see above); delete it and try again" % venv)


def missing_packages(python):
    """The packages of pyproject.toml (dependencies and dev) that are not installed."""
    with open(os.path.join(ROOT, "pyproject.toml")) as file:
        text = file.read()
    lists = re.findall(r"^(?:dependencies|dev) = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    names = sorted(set(re.findall(r'"([A-Za-z0-9_-]+)', "".join(lists))))
    done = subprocess.run([python, "-c", MISSING] + names, stdout=subprocess.PIPE, universal_newlines=True)
    return done.stdout.split()


MISSING = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(name)
"""


def works(python, code):
    """Does `python -c code` end well?"""
    try:
        done = subprocess.run([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def run(*command):
    return subprocess.run(command).returncode == 0


def stop(message):
    sys.exit("Error: " + message)


if __name__ == "__main__":
    main(*sys.argv[1:])
