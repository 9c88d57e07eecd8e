"""`scripts/image-check`: builds, runs, checks, cleans up. Exit codes: 0 all promises hold, 1 not so, 2 usage."""

import argparse
import subprocess
import sys
from pathlib import Path

from image_check.build import BASE, build, make_stand_in, tell_sizes
from image_check.checks import ImageChecks, digits
from image_check.fpga_checks import FpgaImageChecks, seeded_network
from image_check.package_checks import PackageChecks
from image_check.progress import CheckFailed, tell
from image_check.workplace import Workplace, install_tools

CHECKOUT = Path(__file__).parents[2]
BUILTIN = CHECKOUT / "server" / "accelserve" / "builtin"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/image-check", description=__doc__)
    parser.add_argument("--file", default="Dockerfile.gpu", help="the Dockerfile (default: %(default)s)")
    parser.add_argument(
        "--accel", default="cpu", help="Dockerfile.gpu's ACCEL: cpu, or gpu with 1.6 GB to download (default: cpu)"
    )
    parser.add_argument("--extras", default="", help="its EXTRAS, such as tensorflow or openvino")
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
    for_fpga = asked.file.endswith(".fpga")
    flavour = "fpga" if for_fpga else asked.accel
    tag = f"accelserve:{flavour}"
    given = [*([] if for_fpga else [f"ACCEL={asked.accel}"]), f"EXTRAS={asked.extras}", f"REVISION={revision()}"]
    try:
        install_tools()
        with Workplace(asked.work.resolve(), asked.keep) as place:
            if not asked.pull:
                make_stand_in(place)
            build(place, CHECKOUT, asked.file, tag, given, asked.pull)
            tell_sizes(place, tag)
            if for_fpga:
                FpgaImageChecks(place, tag, seeded_network(place, tag, BUILTIN / "pictures")).run()
            else:
                ImageChecks(place, tag, digits(BUILTIN)).run()
                if asked.accel == "cpu":
                    PackageChecks(place, tag, digits(BUILTIN)).run()
            tell("leaving what it made ..." if asked.keep else "removing what it made ...")
    except CheckFailed as error:
        tell(f"FAILED: {error}")
        return 1
    tell(f"{asked.file} ({flavour}) keeps its promises")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
