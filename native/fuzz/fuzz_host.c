/*
 * What squashd tells sq-host: any operation with any fields. The kernel is replaced by functions that only check what reaches them: names
 * without slashes, ended strings, indexes in range.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/frame.h"
#include "../src/host_cells.h"
#include "../src/host_ops.h"
#include "../src/layers.h"
#include "../src/root.h"
#include "../src/upper.h"

static struct host host;

static void require(int condition) {
  if (!condition) abort();
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
  for (uint32_t i = 0; i < plan->layer_count; i++) require(strlen(plan->layers[i]) <= 255);
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
  (void)host_operate(&host, &header, &reader, &failure);
  free(payload);
  return 0;
}
