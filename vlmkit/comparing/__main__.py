"""One trial of a study in a process of its own: its memory is its own, and an accident costs no other.

python -m vlmkit.comparing STUDY TRIAL
"""

from __future__ import annotations

import sys
from pathlib import Path

from vlmkit.comparing.study import Study
from vlmkit.comparing.trial import run
from vlmkit.terminal import guard


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 went wrong, 128 + n stopped by signal n. The last line of stderr says what was wrong."""
    from vlmkit.training.loop import Interrupted

    guard()  # what it says is shown by the study
    study = Study.read(Path(argv[0]))
    try:
        trial = study.trial(argv[1])
        run(trial, study.path, study.threads, study.digest(trial), lambda line: print(line, flush=True))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
