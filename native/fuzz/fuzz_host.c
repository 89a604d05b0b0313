/*
 * What squashd tells sq-host: any operation with any fields. The kernel is replaced by functions that only check what reaches them: names
 * without slashes, ended strings, indexes in range.
 */
#include "../src/kernel_api.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../src/capture.h"
#include "../src/deadline.h"
#include "../src/frame.h"
#include "../src/host_cells.h"
#include "../src/host_network.h"
#include "../src/host_ops.h"
#include "../src/layers.h"
#include "../src/root.h"
#include "../src/subvolumes.h"
#include "../src/upper.h"

static struct host host;

static void require(int condition) {
  if (!condition) abort();
}

static ssize_t check_messages(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length);

#define sendto check_messages
#include "../src/netlink.c"
#undef sendto

/* What would go to the kernel is a sequence of whole messages. */
static ssize_t check_messages(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
  size_t at = 0;
  while (nl_step(bytes, size, &at) != NULL) continue;
  require(fd == -1 && flags == 0 && to != NULL && length > 0 && at == size && size > 0);
  errno = EBADF;
  return -1;
}

/* The names of subvolumes are checked where they are used: here only that they end. */
int pool_mount(int own, int theirs, const char *data_dir, const char *image, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)data_dir;
  (void)failure;
  require(strchr(image, '/') == NULL && image[0] != '.' && strlen(image) <= 255);
  return 0;
}

int pool_unmount(int own, int theirs, const char *data_dir, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)data_dir;
  (void)failure;
  return 0;
}

int pool_open(int own, int theirs, const char *data_dir, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)data_dir;
  (void)failure;
  return STDERR_FILENO + 1000; /* no descriptor: nothing may come of it */
}

int pool_flush(int pool, struct failure *failure) {
  (void)pool;
  (void)failure;
  abort(); /* only a worker does it, and none is started */
}

int subvolume_remove(int pool, const char *name, struct failure *failure) {
  (void)name;
  return pool_flush(pool, failure);
}

int subvolume_snapshot(int pool, const char *source, const char *name, struct failure *failure) {
  (void)source;
  (void)name;
  return pool_flush(pool, failure);
}

int subvolume_use(int pool, const char *name, uint64_t *bytes, struct failure *failure) {
  (void)pool;
  (void)failure;
  require(strlen(name) <= SUBVOLUME_NAME_LIMIT);
  *bytes = 0;
  return 0;
}

int64_t capture(const struct captured_root *roots, uint32_t count, int file, struct failure *failure) {
  (void)roots;
  (void)count;
  (void)file;
  (void)failure;
  return 0;
}

/* No process is started, so that a request that makes sense ends there. */
#define fork() ((pid_t)-1)
#include "../src/host_capture.c"
#define report pool_report
#include "../src/host_pool.c"
#undef report
#undef fork

int network_open(struct network *network, uint32_t subnet, const struct address *subnet6, struct failure *failure) {
  (void)subnet6;
  (void)failure;
  *network = (struct network){.subnet = subnet, .route = -1, .namespace = -1, .firewall = {-1, -1, -1}};
  return 0;
}

struct link_plan network_link(const struct network *network, uint32_t index) {
  require(index < MAX_CELLS);
  return (struct link_plan){.wanted = network->wanted, .index = index};
}

int network_shape_inside(const struct network *network, int pid, uint64_t rate, struct failure *failure) {
  (void)rate;
  (void)failure;
  require(network->wanted && pid > 0);
  return 0;
}

void link_name(uint32_t index, char name[IFNAMSIZ]) {
  require(index < MAX_CELLS);
  (void)format(name, IFNAMSIZ, "sq%uh", index);
}

int link_set(const struct link_plan *plan, int fd, bool up, struct failure *failure) {
  (void)fd;
  (void)up;
  (void)failure;
  require(plan->wanted);
  return 0;
}

int network_gateway(const struct network *network, bool present, struct failure *failure) {
  (void)network;
  (void)failure;
  require(!present);
  return 0;
}

int link_traffic(int fd, uint32_t index, struct link_traffic *traffic, struct failure *failure) {
  (void)fd;
  (void)traffic;
  (void)failure;
  require(index < MAX_CELLS);
  return 0;
}

int link_shape(int fd, const char *name, uint64_t rate, struct failure *failure) {
  (void)fd;
  (void)rate;
  (void)failure;
  require(strlen(name) < IFNAMSIZ);
  return 0;
}

void host_answer(struct host *self, uint32_t request, uint16_t type, const struct failure *failure) {
  (void)self;
  (void)request;
  (void)type;
  (void)failure;
}

int cgroups_open(struct cgroups *cgroups, int version, char *const *paths, struct failure *failure) {
  (void)cgroups;
  (void)failure;
  for (int i = 0; i < (version == 2 ? 1 : CG_CONTROLLERS); i++) require(strlen(paths[i]) < 4096);
  return 0;
}

int cgroup_limit(const struct cgroups *cgroups, uint32_t index, const struct cell_limits *limits, struct failure *failure) {
  (void)cgroups;
  (void)limits;
  (void)failure;
  require(index < MAX_CELLS);
  return 0;
}

int cgroup_freeze(const struct cgroups *cgroups, uint32_t index, bool frozen, struct failure *failure) {
  (void)cgroups;
  (void)frozen;
  (void)failure;
  require(index < MAX_CELLS);
  return 0;
}

int cgroup_kill(const struct cgroups *cgroups, uint32_t index, struct failure *failure) {
  (void)cgroups;
  (void)failure;
  require(index < MAX_CELLS);
  return 0;
}

/* Of the one cell that there is: running, expired, or out of reach, in turn. */
int deadline_of(int pidfd) {
  static int turn;
  require(pidfd == host.cells[0].pidfd);
  turn = (turn + 1) % 3;
  return turn == 2 ? -1 : dup(pidfd);
}

bool deadline_has_passed(int timer) { return timer % 2 == 0; }

int deadline_set(int timer, uint64_t boot_ms) {
  require(timer >= 0 && boot_ms <= (uint64_t)1 << 53);
  return 0;
}

int house_open(struct house *house, const char *run_dir, const char *data_dir, struct failure *failure) {
  (void)house;
  (void)failure;
  require(run_dir[0] == '/' && data_dir[0] == '/');
  return 0;
}

int house_close(const struct house *house, const char *run_dir, struct failure *failure) {
  (void)house;
  (void)failure;
  require(run_dir != NULL);
  return 0;
}

int layer_mount(const char *name, const char *image, const char *type, struct failure *failure) {
  (void)failure;
  require(strlen(name) <= 255 && strlen(image) < 4096 && strlen(type) <= 16);
  return 0;
}

int layer_mount_subvolume(int own, int theirs, int pool, const char *name, const char *image, struct failure *failure) {
  (void)own;
  (void)theirs;
  require(pool > 0);
  return layer_mount(name, image, "subvolume", failure);
}

int layer_unmount(const char *name, struct failure *failure) {
  (void)failure;
  require(strlen(name) <= 255);
  return 0;
}

int upper_mount(int own, int theirs, const struct upper_plan *plan, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)failure;
  require(plan->path[0] == '/' && strlen(plan->image) < 4096);
  require(plan->subvolume == NULL || (plan->pool > 0 && strlen(plan->subvolume) < 4096));
  return 0;
}

int upper_unmount(int own, int theirs, const char *path, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)failure;
  require(path[0] == '/');
  return 0;
}

int netns_publish(int own, int theirs, int netns, const char *name, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)netns;
  (void)failure;
  require(strchr(name, '/') == NULL);
  return 0;
}

int netns_withdraw(int own, int theirs, const char *name, struct failure *failure) {
  return netns_publish(own, theirs, -1, name, failure);
}

int root_give(int own, int theirs, const struct root_plan *plan, struct failure *failure) {
  (void)own;
  (void)theirs;
  (void)failure;
  require(plan->layer_count > 0 && plan->layer_count <= MAX_LAYERS && strlen(plan->hostname) <= 64);
  for (uint32_t i = 0; i < plan->layer_count; i++) require(strlen(plan->layers[i]) <= 255 && plan->owners[i] % IDS_PER_CELL == host.uid_base % IDS_PER_CELL);
  return 0;
}

enum outcome op_cell_make(struct host *self, uint32_t request, struct reader *reader, struct failure *failure) {
  (void)self;
  (void)request;
  (void)failure;
  (void)read_u32(reader);
  return DONE;
}

enum outcome op_cell_kill(struct host *self, uint32_t request, struct reader *reader, struct failure *failure) {
  return op_cell_make(self, request, reader, failure);
}

int op_cell_adopt(struct host *self, struct reader *reader, struct failure *failure) {
  (void)op_cell_make(self, 0, reader, failure);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct failure failure = {0};
  if (size < 1 || size > FRAME_MAX_PAYLOAD) return 0;
  uint8_t *payload = malloc(size);
  if (payload == NULL) return 0;
  memcpy(payload, data, size);
  struct frame_header header = {.size = (uint32_t)(size - 1), .id = 1, .type = (uint16_t)(payload[0] % (OP_COUNT + 2))};
  struct reader reader = {.data = payload + 1, .size = size - 1};
  host.ready = header.type != OP_HELLO;
  host.network.wanted = (payload[0] & 0x80) == 0;
  host.network.firewall = (struct firewall){-1, -1, -1};
  /* one cell is alive, as this process is */
  if (host.cells[0].pid == 0) host.cells[0] = (struct cell){.pid = getpid(), .pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0)};
  (void)host_operate(&host, &header, &reader, &failure);
  free(payload);
  return 0;
}
