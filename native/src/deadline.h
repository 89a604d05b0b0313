/*
 * When a cell ends whatever becomes of squashd and sq-host. Each init holds a timer, and ends when that has expired, and all in the cell with it.
 * The timer is set by sq-host, which takes a copy of its descriptor: nothing inside can do that, as init is not dumpable, and nothing has to
 * run inside, so that it can be set while the cell is frozen, or has no process left. Its clock goes on while the machine is suspended.
 */
#ifndef SQ_DEADLINE_H
#define SQ_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

/* Where init has it. */
enum { DEADLINE_FD = 6 };

/* Makes the timer, which does not run yet; returns it, or -1 with errno. */
int deadline_open(void);

/* A copy of that of the init which `pidfd` means, or -1 with errno. */
int deadline_of(int pidfd);

/* Whether it has expired, whether or not init has had the time to notice. */
bool deadline_has_passed(int timer);

/*
 * Sets it to milliseconds of CLOCK_BOOTTIME, 0 for none. An absolute time, as this may run long after squashd has asked for it. Returns 0, or -1
 * with errno: ETIME when it has expired, which is final.
 */
int deadline_set(int timer, uint64_t boot_ms);

#endif
