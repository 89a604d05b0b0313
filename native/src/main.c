/*
 * sq-host: does for squashd what needs the kernel. Started by squashd with a socket as descriptor 3; ends when that closes. Cells go on.
 * One thread, one loop, no allocation after start.
 */
#include "kernel_api.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "frame.h"
#include "host_capture.h"
#include "host_ops.h"
#include "host_pool.h"
#include "io.h"

enum { LINK = 3, FILES = 1 << 20 };

static struct host host;
static uint8_t payload[FRAME_MAX_PAYLOAD];

void host_answer(struct host *self, uint32_t request, uint16_t type, const struct failure *failure) {
  struct frame_header header = {.id = request, .type = type, .status = (uint16_t)failure->code};
  if (failure->code != 0) {
    writer_reset(&self->reply);
    write_string(&self->reply, failure->what);
  }
  if (send_frame(self->link, header, &self->reply) < 0) _exit(0);
}

/* One request. A link that breaks, or a frame that makes no sense, means that squashd is gone or not itself: nothing more can be done. */
static void serve_request(void) {
  uint8_t bytes[FRAME_HEADER_SIZE];
  struct frame_header header;
  struct failure failure = {0};
  if (read_full(LINK, bytes, sizeof(bytes)) < 0) _exit(0);
  if (!frame_decode(bytes, &header)) _exit(65);
  if (read_full(LINK, payload, header.size) < 0) _exit(0);
  struct reader reader = {.data = payload, .size = header.size};
  if (host_operate(&host, &header, &reader, &failure) == DONE) host_answer(&host, header.id, header.type, &failure);
}

static void serve(void) {
  struct epoll_event events[64];
  for (;;) {
    int count = epoll_wait(host.epoll, events, (int)ARRAY_LEN(events), host.killing_count > 0 ? 1 : -1);
    if (count < 0 && errno != EINTR) _exit(70);
    for (int i = 0; i < count; i++) {
      uint64_t tag = events[i].data.u64;
      if (tag == (uint64_t)TAG_LINK) {
        serve_request();
      } else if (tag == (uint64_t)TAG_LOG) {
        host_packets_logged(&host);
      } else if (tag == (uint64_t)TAG_FIREWALL) {
        host_firewall_changed(&host);
      } else if (tag >> 32 == TAG_CAPTURE) {
        host_captured(&host, (uint32_t)tag);
      } else if (tag >> 32 == TAG_POOL) {
        host_pool_done(&host, (uint32_t)tag);
      } else if (tag >> 32 == TAG_MAKER) {
        host_cell_made(&host, (uint32_t)tag);
      } else {
        host_cell_died(&host, (uint32_t)tag);
      }
    }
    if (host.killing_count > 0) host_continue_killing(&host);
  }
}

/*
 * What squashd was started with says little: shells and service managers have habits of their own. Sandboxes are to have the same limits
 * everywhere (confine.c), and a capture opens a file for each directory on its way. Where more is not allowed, what there is is used.
 */
static void raise_file_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  const struct rlimit most = {FILES, FILES}, all = {limit.rlim_max, limit.rlim_max};
  if (limit.rlim_max >= FILES || setrlimit(RLIMIT_NOFILE, &most) < 0) (void)setrlimit(RLIMIT_NOFILE, &all);
}

int main(int argc, char **argv) {
  struct stat info;
  if (argc != 1 || fstat(LINK, &info) < 0 || !S_ISSOCK(info.st_mode)) {
    (void)fprintf(stderr, "%s is started by squashd, with a socket as descriptor 3\n", argc > 0 ? argv[0] : "sq-host");
    return 64;
  }
  /* Children are reaped by the kernel; their ends are seen through pidfds. The loop must not be stopped by a terminal's signals. */
  static const int ignored[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGTTOU, SIGTTIN, SIGTSTP};
  for (size_t i = 0; i < ARRAY_LEN(ignored); i++) (void)signal(ignored[i], SIG_IGN);
  (void)setsid();
  (void)umask(022);
  (void)prctl(PR_SET_NAME, "sq-host", 0, 0, 0);
  (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  /* Here, since only the host's root can raise it where squashd was started with 0; confine.c says what it is for. */
  (void)setrlimit(RLIMIT_CORE, &(struct rlimit){1, 1});
  raise_file_limit();
  host.link = LINK;
  host.epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)TAG_LINK};
  if (host.epoll < 0 || epoll_ctl(host.epoll, EPOLL_CTL_ADD, LINK, &event) < 0) return 70;
  serve();
}
