"""`scripts/image-check`: builds, runs, checks, cleans up. Exit codes: 0 all promises hold, 1 not so, 2 usage."""

import argparse
import subprocess
import sys
from pathlib import Path

from image_check.build import BASE, build, make_stand_in, tell_sizes
from image_check.checks import ImageChecks
from image_check.progress import CheckFailed, tell
from image_check.workplace import Workplace, install_tools

CHECKOUT = Path(__file__).parents[2]
BUILTIN = CHECKOUT / "server" / "accelserve" / "builtin"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/image-check", description=__doc__)
    parser.add_argument("--file", default="Dockerfile.gpu", help="the Dockerfile (default: %(default)s)")
    parser.add_argument("--accel", default="cpu", help="its ACCEL: cpu, or gpu with 1.6 GB to download (default: cpu)")
    parser.add_argument("--extras", default="", help="its EXTRAS, such as tensorflow")
    parser.add_argument("--pull", action="store_true", help=f"take {BASE} from its registry, not a stand-in made here")
    parser.add_argument("--keep", action="store_true", help="leave the image and its folder behind")
    where = CHECKOUT / ".cache" / "image-check"
    parser.add_argument("--work", type=Path, default=where, help="the folder that holds it all (default: %(default)s)")
    return parser.parse_args(arguments)


def revision() -> str:
    done = subprocess.run(["git", "-C", CHECKOUT, "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    tag = f"accelserve:{asked.accel}"
    given = [f"ACCEL={asked.accel}", f"EXTRAS={asked.extras}", f"REVISION={revision()}"]
    try:
        install_tools()
        with Workplace(asked.work.resolve(), asked.keep) as place:
            if not asked.pull:
                make_stand_in(place)
            build(place, CHECKOUT, asked.file, tag, given, asked.pull)
            tell_sizes(place, tag)
            ImageChecks(place, tag, BUILTIN, BUILTIN / "pictures").run()
            tell("leaving what it made ..." if asked.keep else "removing what it made ...")
    except CheckFailed as error:
        tell(f"FAILED: {error}")
        return 1
    tell(f"{asked.file} with ACCEL={asked.accel} keeps its promises")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
