"""`waypost worker`: the scheduled jobs against a store; any number of workers side by side, each run happens once."""

import argparse
import asyncio
import sys

import msgspec

from service import log
from service.cli import actions, store
from service.config import JOBS, Settings
from service.errors import WaypostError

EXIT_USAGE = 2  # as argparse has it


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `worker`."""
    parser = subparsers.add_parser(
        "worker",
        help="run the scheduled jobs",
        description=f"Run the scheduled jobs ({', '.join(JOBS)}) at their times, or one of them now.",
    )
    store.add_argument(parser)
    parser.add_argument("--once", metavar="JOB", choices=JOBS, help="run this job now, print its report, and end")
    parser.add_argument("--json", action="store_true", help="with --once: the report as JSON, as it is in the store")
    # Says in the list of processes which data folder's `up` the worker belongs to; service/embedded.py looks for it.
    parser.add_argument("--started-by", metavar="DATA_DIR", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Work until a signal ends it. 1: no store, or the one job did not come to its end. 2: misused."""
    if args.json and not args.once:
        print("waypost: --json goes with --once JOB", file=sys.stderr)
        return EXIT_USAGE
    log.set_up(settings)
    url = store.find(args, settings)
    if url is None:
        return 1
    settings = msgspec.structs.replace(settings, redis_url=url)

    from service.store.sights import Action  # noqa: PLC0415 - see service/cli
    from workers import __main__ as workers  # noqa: PLC0415
    from workers.runs import Lost  # noqa: PLC0415

    try:
        if not args.once:
            return asyncio.run(workers.run(settings))
        report = asyncio.run(workers.once(settings, args.once))
        outcome = "ok" if report.state == "done" else report.state
        actions.note(settings, Action(actions.who(), "job_run", args.once, outcome=outcome, detail=f"run {report.run}"))
    except workers.JobBusy:
        print(f"waypost: another worker is running {args.once}", file=sys.stderr)
        return 1
    except Lost:
        print(f"waypost: the run was lost to another worker, which goes on with {args.once}", file=sys.stderr)
        return 1
    except WaypostError as error:
        print(f"waypost: {error.detail}", file=sys.stderr)
        return 1
    if args.json:
        print(msgspec.json.encode(report).decode())
    else:
        print("\n".join(workers.lines(report)))
    return 0 if report.state == "done" else 1
