/*
 * What the kernel tells: answers, attributes, tracked connections, counters, logged packets. The sources themselves are included, so that
 * their own functions can be called; what they receive is the input.
 */
#include "../src/kernel_api.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t *input;
static size_t input_size;

/* The input as one datagram, then nothing more. */
static ssize_t give(void *buffer, size_t capacity, int flags) {
  size_t size = input_size, copied = size < capacity ? size : capacity;
  if (size == 0) {
    errno = EAGAIN;
    return -1;
  }
  memcpy(buffer, input, copied);
  input_size = 0;
  return (ssize_t)((flags & MSG_TRUNC) != 0 ? size : copied);
}

static ssize_t give_from(int fd, void *buffer, size_t capacity, int flags, struct sockaddr *from, socklen_t *length) {
  (void)fd;
  (void)from;
  (void)length;
  return give(buffer, capacity, flags);
}

static ssize_t give_any(int fd, void *buffer, size_t capacity, int flags) { return give_from(fd, buffer, capacity, flags, NULL, NULL); }

static ssize_t take(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
  (void)fd;
  (void)bytes;
  (void)flags;
  (void)to;
  (void)length;
  return (ssize_t)size;
}

#define sendto take
#define recvfrom give_from
#define recv give_any
#include "../src/netlink.c"

#include "../src/nftables.c"

#include "../src/firewall.c"

#include "../src/link.c"

enum { FLOWS = 4 };

static void require(bool condition) {
  if (!condition) abort();
}

static void find(const uint8_t *bytes, size_t size) {
  for (uint16_t type = 0; type < 16; type++) {
    size_t length = 0;
    const uint8_t *found = nl_find(bytes, size, type, &length);
    require(found == NULL || (found >= bytes + sizeof(struct nlattr) && length <= size && found + length <= bytes + size));
  }
}

static void flows(const uint8_t *bytes, size_t size) {
  struct flow list[FLOWS];
  struct flow_search search = {.flows = list};
  if (size < sizeof(search.source)) return;
  memcpy(&search.source, bytes, sizeof(search.source));
  take_flow(bytes + sizeof(search.source), size - sizeof(search.source), &search);
  require(search.count == 0 || (search.count == 1 && list[0].protocol != 0));
}

static void count_packet(const struct logged_packet *packet, void *context) {
  require(packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP || packet->destination_port == 0);
  ++*(size_t *)context;
}

static void see_payload(const uint8_t *payload, size_t size, void *context) {
  uint64_t counter[2] = {0};
  struct link_traffic traffic = {0};
  (void)context;
  take_counter(payload, size, counter);
  take_traffic(payload, size, &traffic);
  (void)is_our_table(payload, size);
}

/* As if it were the answer to the first message of all. */
static void answers(bool query) {
  uint8_t bytes[64];
  struct nl_batch batch;
  last_sequence = 0;
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, 1, NLM_F_ACK, NULL, 0);
  errno = 0;
  int result = query ? nl_query(-1, &batch, see_payload, NULL) : nl_transact(-1, &batch, ENOENT);
  require(result == 0 || errno != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const struct firewall firewall = {-1, -1, -1};
  struct logged_packet packet;
  size_t packets = 0;
  if (size < 2) return 0;
  /* A copy of exactly the right size, so that the sanitizer sees any step beyond it. */
  uint8_t *bytes = malloc(size - 1);
  if (bytes == NULL) return 0;
  memcpy(bytes, data + 1, size - 1);
  input = bytes;
  input_size = size - 1;
  switch (data[0] % 8) {
    case 0: find(bytes, size - 1); break;
    case 1: flows(bytes, size - 1); break;
    case 2: see_payload(bytes, size - 1, NULL); break;
    case 3: (void)understand_packet(bytes, size - 1, &packet); break;
    case 4: firewall_read_log(&firewall, count_packet, &packets); break;
    case 5: (void)firewall_is_gone(&firewall); break;
    case 6: answers(true); break;
    default: answers(false);
  }
  free(bytes);
  return 0;
}
