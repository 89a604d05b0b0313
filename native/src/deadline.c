#include "kernel_api.h"

#include "deadline.h"

#include <errno.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>

int deadline_open(void) { return timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK); }

int deadline_of(int pidfd) { return sys_pidfd_getfd(pidfd, DEADLINE_FD); }

bool deadline_has_passed(int timer) {
  struct pollfd expired = {.fd = timer, .events = POLLIN};
  return poll(&expired, 1, 0) > 0 && (expired.revents & POLLIN) != 0;
}

int deadline_set(int timer, uint64_t boot_ms) {
  if (deadline_has_passed(timer)) {
    errno = ETIME;
    return -1;
  }
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(boot_ms / 1000), .tv_nsec = (long)(boot_ms % 1000) * 1000000}};
  return timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}
