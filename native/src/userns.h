/* User namespaces that exist only to say how owners are shifted on a mount. */
#ifndef SQ_USERNS_H
#define SQ_USERNS_H

#include <stdint.h>

#include "failure.h"

/* A user namespace that shows the `count` ids on the disk from `stored` on as those from `shown` on. */
int userns_shift(uint32_t stored, uint32_t shown, uint32_t count, struct failure *failure);

#endif
