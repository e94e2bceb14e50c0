"""What the errors of Windows are called elsewhere. Pure."""

from __future__ import annotations

import errno

ERROR_INVALID_FUNCTION = 1
ERROR_ACCESS_DENIED = 5
ERROR_HANDLE_EOF = 38
ERROR_NOT_SUPPORTED = 50
ERROR_INVALID_PARAMETER = 87
ERROR_MORE_DATA = 234
#: What says that a call, or a flag of it, is not known to the file system.
UNKNOWN_CALL = frozenset({ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED, ERROR_INVALID_PARAMETER})
#: What an error of Windows is elsewhere; those that are not here are EIO.
_ERRORS = {
    ERROR_INVALID_FUNCTION: errno.ENOSYS,
    2: errno.ENOENT,  # FILE_NOT_FOUND
    3: errno.ENOENT,  # PATH_NOT_FOUND
    4: errno.EMFILE,  # TOO_MANY_OPEN_FILES
    ERROR_ACCESS_DENIED: errno.EACCES,
    17: errno.EXDEV,  # NOT_SAME_DEVICE
    19: errno.EROFS,  # WRITE_PROTECT
    32: errno.EAGAIN,  # SHARING_VIOLATION
    33: errno.EAGAIN,  # LOCK_VIOLATION
    39: errno.ENOSPC,  # HANDLE_DISK_FULL
    ERROR_NOT_SUPPORTED: errno.EOPNOTSUPP,
    80: errno.EEXIST,  # FILE_EXISTS
    ERROR_INVALID_PARAMETER: errno.EINVAL,
    112: errno.ENOSPC,  # DISK_FULL
    123: errno.EINVAL,  # INVALID_NAME
    145: errno.ENOTEMPTY,  # DIR_NOT_EMPTY
    183: errno.EEXIST,  # ALREADY_EXISTS
    206: errno.ENAMETOOLONG,  # FILENAME_EXCED_RANGE
    267: errno.ENOTDIR,  # DIRECTORY
    303: errno.ENOENT,  # DELETE_PENDING
    336: errno.EISDIR,  # DIRECTORY_NOT_SUPPORTED
    681: errno.ELOOP,  # STOPPED_ON_SYMLINK
    1142: errno.EMLINK,  # TOO_MANY_LINKS
    1224: errno.ETXTBSY,  # USER_MAPPED_FILE
    1295: errno.ENOSPC,  # DISK_QUOTA_EXCEEDED
    1314: errno.EACCES,  # PRIVILEGE_NOT_HELD
    1920: errno.EACCES,  # CANT_ACCESS_FILE
}


def errno_of(code: int) -> int:
    """Return what an error of Windows is called elsewhere."""
    return _ERRORS.get(code, errno.EIO)
