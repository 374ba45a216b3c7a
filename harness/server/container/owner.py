"""Work as the user to whom the project belongs on the host, so that what is written is theirs.

A container starts as root, who alone can become somebody else, and knows that user only by the owner of a
folder of theirs. In rootless Docker and Podman that owner is root, which there is the user: nothing changes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "RUN_AS_OWNER_OF"
"""Names a folder of the host's user; compose.yaml sets it and mounts the folder."""


def become_owner(own: Sequence[Path] = ()) -> None:
    """Become the owner of the folder in $RUN_AS_OWNER_OF; nothing to do where we are not root.

    Args:
        own: Folders to hand over as well if they are empty: then Docker has just made them, for root.
    """
    folder = os.environ.get(VARIABLE)
    if not folder or os.getuid() != 0:
        return
    user = Path(folder).stat()
    for path in own:
        if path.stat().st_uid != user.st_uid and not any(path.iterdir()):
            os.chown(path, user.st_uid, user.st_gid)
    if user.st_uid == 0:
        return
    os.setgroups([])
    os.setgid(user.st_gid)
    os.setuid(user.st_uid)
    # In here the user has neither a home nor a name, for both of which libraries may ask.
    os.environ.update(HOME="/tmp", USER="user", LOGNAME="user")
