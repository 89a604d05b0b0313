/* What a cell's init gives up before it starts the first command. Everything here is inherited by every command. */
#ifndef SQ_CONFINE_H
#define SQ_CONFINE_H

#include <stdbool.h>

#include "failure.h"

/* Limits, capabilities, no_new_privs, dumpability and the system call filter, in the order in which they must go. */
int confine(bool nested_userns, struct failure *failure);

#endif
