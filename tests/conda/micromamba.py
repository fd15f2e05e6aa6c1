"""A `micromamba` as far as an executor calls one, on rattler: its real solver, its real installer."""
import argparse
import asyncio
import os
import sys

import rattler

# As micromamba, which knows no other variable for it: what this one names is trusted, else what the system trusts.
os.environ.pop("SSL_CERT_FILE", None)
if "MAMBA_SSL_VERIFY" in os.environ:
    os.environ["SSL_CERT_FILE"] = os.environ["MAMBA_SSL_VERIFY"]


async def create(prefix, channels, specs):
    records = await rattler.solve(
        sources=[rattler.Channel(channel) for channel in channels],
        specs=[rattler.MatchSpec(spec) for spec in specs],
        platforms=["linux-64", "noarch"],
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    for record in records:
        print(f"  + {record.name.normalized} {record.version}")
    await rattler.install(records, target_prefix=prefix, cache_dir=os.environ.get("CONDA_PKGS_DIRS"), show_progress=False)


parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["create"])
parser.add_argument("--yes", action="store_true")
parser.add_argument("--quiet", action="store_true")
parser.add_argument("--override-channels", action="store_true")
parser.add_argument("--prefix", required=True)
parser.add_argument("--channel", action="append", default=[])
parser.add_argument("specs", nargs="+")
arguments = parser.parse_args()
failed = None
try:
    asyncio.run(create(arguments.prefix, arguments.channel, arguments.specs))
except Exception as error:
    failed = f"error    {error}"
# rattler's threads outlive the loop, and may want the interpreter while it is taken down.
sys.stdout.flush()
if failed:
    print(failed, file=sys.stderr, flush=True)
os._exit(1 if failed else 0)
