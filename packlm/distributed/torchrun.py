"""`python -m packlm.distributed.torchrun ...` is torchrun without its traceback, and with the exit status of the rank that failed first.

That rank has said in one line why. torchrun itself ends with 1 whatever a rank's status is.
"""

import logging
import sys

from torch.distributed.elastic.agent.server.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from packlm.base.errors import FAILED, STOPPED


def main() -> None:
    """Runs the command line of this process."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else FAILED)
    except SignalException:
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
