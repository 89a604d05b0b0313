#include "kernel_api.h"

#include "host_ops.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "deadline.h"
#include "io.h"
#include "host_capture.h"
#include "host_cells.h"
#include "host_network.h"
#include "host_pool.h"
#include "layers.h"
#include "root.h"
#include "upper.h"

enum { NAME_LIMIT = 255, NO_OWNER = 0xffffffff };

/* No machine is up for that long. */
#define MAX_BOOT_MS ((uint64_t)1 << 53)

int bad_request(struct failure *failure) {
  errno = EBADMSG;
  return fail(failure, "understand the request");
}

static int op_hello(struct host *host, struct reader *reader, struct failure *failure) {
  char *paths[CG_CONTROLLERS] = {0};
  const char *run_dir = read_string(reader, PATH_MAX - 1), *data_dir = read_string(reader, PATH_MAX - 1);
  uint32_t uid_base = read_u32(reader), subnet = read_u32(reader);
  struct address subnet6 = read_address(reader);
  uint32_t version = read_u32(reader);
  for (uint32_t i = 0; i < (version == 2 ? 1U : CG_CONTROLLERS); i++) paths[i] = read_string(reader, PATH_MAX - 1);
  if (!reader_finished(reader) || (version != 1 && version != 2) || host->ready) return bad_request(failure);
  if (run_dir[0] != '/' || data_dir[0] != '/') return bad_request(failure);
  (void)format(host->run_dir, sizeof(host->run_dir), "%s", run_dir);
  (void)format(host->data_dir, sizeof(host->data_dir), "%s", data_dir);
  host->uid_base = uid_base;
  if (network_open(&host->network, subnet, &subnet6, failure) < 0 || host_watch_firewall(host, failure) < 0) return -1;
  if (cgroups_open(&host->cgroups, (int)version, paths, failure) < 0) return -1;
  if (house_open(&host->house, host->run_dir, data_dir, failure) < 0) return -1;
  host->ready = true;
  write_u32(&host->reply, host->house.inherited ? 1 : 0);
  return 0;
}

static int op_layer_mount(struct host *host, struct reader *reader, struct failure *failure) {
  const char *name = read_string(reader, NAME_LIMIT), *image = read_string(reader, PATH_MAX - 16), *type = read_string(reader, 16);
  char path[PATH_MAX];
  if (!reader_finished(reader)) return bad_request(failure);
  if (strcmp(type, "subvolume") == 0) {
    int pool = host_pool(host, failure);
    if (pool < 0) return -1;
    return layer_mount_subvolume(host->house.own_mounts, host->house.host_mounts, pool, name, image, failure);
  }
  (void)format(path, sizeof(path), "/data/%s", image);
  return layer_mount(name, path, type, failure);
}

static int op_layer_unmount(struct host *host, struct reader *reader, struct failure *failure) {
  (void)host;
  const char *name = read_string(reader, NAME_LIMIT);
  if (!reader_finished(reader)) return bad_request(failure);
  return layer_unmount(name, failure);
}

static int op_layer_list(struct host *host, struct reader *reader, struct failure *failure) {
  if (!reader_finished(reader)) return bad_request(failure);
  uint32_t count = 0;
  DIR *directory = opendir("/l");
  if (directory == NULL) return fail(failure, "list layers");
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
    if (entry->d_name[0] != '.') count++;
  write_u32(&host->reply, count);
  rewinddir(directory);
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
    if (entry->d_name[0] != '.') write_string(&host->reply, entry->d_name);
  (void)closedir(directory);
  return 0;
}

static int op_cell_limit(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader);
  struct cell_limits limits = {.memory_bytes = read_u64(reader)};
  limits.cpu_quota_us = read_u32(reader);
  limits.pids = read_u32(reader);
  if (!reader_finished(reader) || index >= MAX_CELLS) return bad_request(failure);
  return cgroup_limit(&host->cgroups, index, &limits, failure);
}

static bool is_overdue(const struct host *host, uint32_t index) {
  if (host->cells[index].pid == 0) return false;
  AUTO_CLOSE int timer = deadline_of(host->cells[index].pidfd);
  return timer >= 0 && deadline_has_passed(timer);
}

/* All of it is told to die before any of it can run again: init, when it is thawed, would be one among many. Its end is told of as that of any init. */
static int end_overdue(const struct host *host, uint32_t index, struct failure *failure) {
  if (cgroup_kill(&host->cgroups, index, failure) < 0) return -1;
  if (cgroup_freeze(&host->cgroups, index, false, failure) < 0) return -1;
  errno = ETIME;
  return fail(failure, "thaw cell %u", index);
}

static int op_cell_freeze(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader), frozen = read_u32(reader);
  if (!reader_finished(reader) || index >= MAX_CELLS) return bad_request(failure);
  if (frozen == 0 && is_overdue(host, index)) return end_overdue(host, index, failure);
  return cgroup_freeze(&host->cgroups, index, frozen != 0, failure);
}

static int op_cell_deadline(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader);
  uint64_t boot_ms = read_u64(reader);
  pid_t pid;
  if (!reader_finished(reader) || index >= MAX_CELLS || boot_ms > MAX_BOOT_MS) return bad_request(failure);
  if (living_cell(host, index, &pid, failure) < 0) return -1;
  AUTO_CLOSE int timer = deadline_of(host->cells[index].pidfd);
  if (timer < 0) return fail(failure, "take the timer of the deadline of cell %u", index);
  if (deadline_set(timer, boot_ms) < 0) return fail(failure, "set the deadline of cell %u", index);
  return 0;
}

int living_cell(const struct host *host, uint32_t index, pid_t *pid, struct failure *failure) {
  errno = ESRCH;
  if (index >= MAX_CELLS || host->cells[index].pid == 0) return fail(failure, "find cell %u", index);
  *pid = host->cells[index].pid;
  if (sys_pidfd_send_signal(host->cells[index].pidfd, 0) < 0) return fail(failure, "find the init of cell %u", index);
  return 0;
}

static int op_root_give(struct host *host, struct reader *reader, struct failure *failure) {
  static struct root_plan plan;
  uint32_t index = read_u32(reader);
  uint32_t flags = read_u32(reader);
  plan.fresh = (flags & ROOT_FRESH) != 0;
  plan.named = (flags & ROOT_NAMED) != 0;
  plan.again = (flags & ROOT_AGAIN) != 0;
  plan.hostname = read_string(reader, 64);
  plan.upper = read_string(reader, PATH_MAX - 1);
  plan.layer_count = read_u32(reader);
  if (plan.layer_count > MAX_LAYERS || plan.layer_count == 0) return bad_request(failure);
  for (uint32_t i = 0; i < plan.layer_count; i++) {
    plan.layers[i] = read_string(reader, NAME_LIMIT);
    uint32_t owner = read_u32(reader);
    if (owner >= MAX_CELLS && owner != NO_OWNER) return bad_request(failure);
    plan.owners[i] = owner == NO_OWNER ? 0 : host->uid_base + owner * IDS_PER_CELL;
  }
  if (!reader_finished(reader) || index >= MAX_CELLS) return bad_request(failure);
  plan.uid_base = host->uid_base + index * IDS_PER_CELL;
  plan.nameserver = host->network.wanted ? host->network.subnet + 1 : 0;
  if (living_cell(host, index, &plan.pid, failure) < 0) return -1;
  return root_give(host->house.own_mounts, host->house.host_mounts, &plan, failure);
}

static int op_upper_mount(struct host *host, struct reader *reader, struct failure *failure) {
  struct upper_plan plan = {.path = read_string(reader, PATH_MAX - 1)};
  plan.image = read_string(reader, PATH_MAX - 1);
  plan.size = read_u64(reader);
  uint32_t index = read_u32(reader);
  if (!reader_finished(reader) || index >= MAX_CELLS || plan.path[0] != '/') return bad_request(failure);
  plan.uid_base = host->uid_base + index * IDS_PER_CELL;
  if (plan.image[0] != '\0' && plan.image[0] != '/') {
    if (strncmp(plan.image, "pool/", 5) != 0) return bad_request(failure);
    plan.subvolume = plan.image + 5;
    plan.pool = host_pool(host, failure);
    if (plan.pool < 0) return -1;
  }
  return upper_mount(host->house.own_mounts, host->house.host_mounts, &plan, failure);
}

static int op_upper_unmount(struct host *host, struct reader *reader, struct failure *failure) {
  const char *path = read_string(reader, PATH_MAX - 1);
  if (!reader_finished(reader) || path[0] != '/') return bad_request(failure);
  return upper_unmount(host->house.own_mounts, host->house.host_mounts, path, failure);
}

static int op_netns_publish(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader);
  const char *name = read_string(reader, NETNS_MAX_NAME);
  pid_t pid;
  char path[64];
  if (!reader_finished(reader) || strchr(name, '/') != NULL || name[0] == '.') return bad_request(failure);
  if (living_cell(host, index, &pid, failure) < 0) return -1;
  (void)format(path, sizeof(path), "/proc/%d/ns/net", pid);
  AUTO_CLOSE int netns = open(path, O_RDONLY | O_CLOEXEC);
  if (netns < 0) return fail(failure, "open %s", path);
  return netns_publish(host->house.own_mounts, host->house.host_mounts, netns, name, failure);
}

static int op_netns_withdraw(struct host *host, struct reader *reader, struct failure *failure) {
  const char *name = read_string(reader, NETNS_MAX_NAME);
  if (!reader_finished(reader) || strchr(name, '/') != NULL || name[0] == '.') return bad_request(failure);
  return netns_withdraw(host->house.own_mounts, host->house.host_mounts, name, failure);
}

static int op_close(struct host *host, struct reader *reader, struct failure *failure) {
  if (!reader_finished(reader)) return bad_request(failure);
  return house_close(&host->house, host->run_dir, failure);
}

enum outcome host_operate(struct host *host, const struct frame_header *header, struct reader *reader, struct failure *failure) {
  static int (*const operations[OP_COUNT])(struct host *, struct reader *, struct failure *) = {
      [OP_HELLO] = op_hello,           [OP_LAYER_MOUNT] = op_layer_mount,     [OP_LAYER_UNMOUNT] = op_layer_unmount,
      [OP_LAYER_LIST] = op_layer_list, [OP_CELL_ADOPT] = op_cell_adopt,       [OP_CELL_LIMIT] = op_cell_limit,
      [OP_CELL_FREEZE] = op_cell_freeze, [OP_ROOT_GIVE] = op_root_give,       [OP_UPPER_MOUNT] = op_upper_mount,
      [OP_UPPER_UNMOUNT] = op_upper_unmount, [OP_NETNS_PUBLISH] = op_netns_publish, [OP_NETNS_WITHDRAW] = op_netns_withdraw,
      [OP_CLOSE] = op_close,           [OP_NET_UPDATE] = op_net_update,       [OP_NET_STATS] = op_net_stats,
      [OP_NET_FLOWS] = op_net_flows,   [OP_NET_CUT] = op_net_cut,             [OP_NET_SHAPE] = op_net_shape,
      [OP_NET_GATE] = op_net_gate,     [OP_NET_CLOSE] = op_net_close,
      [OP_POOL_MOUNT] = op_pool_mount, [OP_POOL_UNMOUNT] = op_pool_unmount,   [OP_SUBVOLUME_USE] = op_subvolume_use,
      [OP_CELL_DEADLINE] = op_cell_deadline,
  };
  writer_reset(&host->reply);
  if (header->type == OP_HELLO || host->ready) {
    if (header->type == OP_CELL_MAKE) return op_cell_make(host, header->id, reader, failure);
    if (header->type == OP_CELL_KILL) return op_cell_kill(host, header->id, reader, failure);
    if (header->type == OP_POOL_FLUSH || header->type == OP_SUBVOLUME_SNAPSHOT || header->type == OP_SUBVOLUME_REMOVE)
      return op_pool_task(host, header->type, header->id, reader, failure);
    if (header->type == OP_CAPTURE || header->type == OP_COMPARE || header->type == OP_UPPER_FORGET)
      return op_capture(host, header->id, header->type, reader, failure);
    if (header->type < OP_COUNT && operations[header->type] != NULL) {
      (void)operations[header->type](host, reader, failure);
      return DONE;
    }
  }
  errno = ENOSYS;
  (void)fail(failure, "do operation %u", header->type);
  return DONE;
}
