/* Extended attributes of a sandbox's root directory, which overlayfs takes of the upper alone. */
#ifndef SQ_ROOT_ATTRIBUTES_H
#define SQ_ROOT_ATTRIBUTES_H

#include <stdint.h>

#include "failure.h"

/*
 * Gives the directory `to` the attributes of users and the access lists of the directory `from`. An upper that can hold none of a kind stays
 * without, as with what overlayfs copies up. Owners in the lists become those of the cell, whose root is `uid_base`.
 */
int root_copy_attributes(int from, int to, uint32_t uid_base, struct failure *failure);

#endif
