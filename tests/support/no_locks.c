/* Preloaded, this is a file system without locks: flock fails with the error whose number is in FLOCK_ERRNO. */

#include <errno.h>
#include <stdlib.h>

int flock(int descriptor, int operation)
{
    const char *number = getenv("FLOCK_ERRNO");
    (void)descriptor;
    (void)operation;
    errno = number ? atoi(number) : ENOSYS;
    return -1;
}
