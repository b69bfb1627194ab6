"""`python -m ddpo` is the console script `ddpo`.

Python puts the current folder first in `sys.path` for `-m`, where a file such as `torch.py` of a
stranger's run folder would hide the library. The folder is taken out again, as for the script.
"""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    from ddpo.cli.main import main

    main()
