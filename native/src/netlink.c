#include "netlink.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "io.h"

enum { RECEIVE_TIMEOUT_S = 10, DUMP_BUFFER = 4 * 1024 * 1024, BATCH_BUFFER = 4 * 1024 * 1024, MAX_ERRNO = 4096 };

/* Of all messages of this process, so that a late answer to an earlier batch is known as such. */
static uint32_t last_sequence;

int nl_open(int protocol, struct failure *failure) {
  static const struct timeval timeout = {.tv_sec = RECEIVE_TIMEOUT_S};
  int dump = DUMP_BUFFER, batch = BATCH_BUFFER, on = 1;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) return fail(failure, "open netlink socket %d", protocol);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK};
  if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0) {
    (void)fail(failure, "set up netlink socket %d", protocol);
    close_fd(&fd);
    return -1;
  }
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &dump, sizeof(dump));
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &batch, sizeof(batch)); /* a batch is one datagram, which must fit */
  (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)); /* refusals need not bring the request back */
  return fd;
}

void nl_start(struct nl_batch *batch, void *bytes, size_t capacity) {
  *batch = (struct nl_batch){.bytes = bytes, .capacity = capacity, .before = last_sequence, .sequence = last_sequence};
}

static uint8_t *grow(struct nl_batch *batch, size_t size) {
  size_t aligned = NLMSG_ALIGN(size);
  if (batch->failed || aligned > batch->capacity - batch->size) {
    batch->failed = true;
    return NULL;
  }
  uint8_t *bytes = batch->bytes + batch->size;
  memset(bytes, 0, aligned);
  batch->size += aligned;
  return bytes;
}

/* The length of the open message, which ends where the batch does. */
static void measure(const struct nl_batch *batch) {
  uint32_t length = (uint32_t)(batch->size - batch->message);
  if (!batch->failed) memcpy(batch->bytes + batch->message, &length, sizeof(length));
}

void *nl_message(struct nl_batch *batch, uint16_t type, uint16_t flags, const void *header, size_t size) {
  size_t start = batch->size;
  struct nlmsghdr head = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++last_sequence};
  uint8_t *bytes = grow(batch, sizeof(head) + size);
  if (bytes == NULL) return NULL;
  memcpy(bytes, &head, sizeof(head));
  if (size > 0) memcpy(bytes + sizeof(head), header, size);
  batch->message = start;
  batch->sequence = head.nlmsg_seq;
  if ((flags & NLM_F_ACK) != 0) batch->awaited = head.nlmsg_seq;
  measure(batch);
  return bytes + sizeof(head);
}

void nl_put(struct nl_batch *batch, uint16_t type, const void *data, size_t size) {
  struct nlattr head = {.nla_len = (uint16_t)(sizeof(head) + size), .nla_type = type};
  if (size > UINT16_MAX - sizeof(head)) batch->failed = true;
  uint8_t *bytes = grow(batch, sizeof(head) + size);
  if (bytes == NULL) return;
  memcpy(bytes, &head, sizeof(head));
  if (size > 0) memcpy(bytes + sizeof(head), data, size);
  measure(batch);
}

void nl_put_u8(struct nl_batch *batch, uint16_t type, uint8_t value) { nl_put(batch, type, &value, sizeof(value)); }

void nl_put_u32(struct nl_batch *batch, uint16_t type, uint32_t value) { nl_put(batch, type, &value, sizeof(value)); }

void nl_put_be32(struct nl_batch *batch, uint16_t type, uint32_t value) { nl_put_u32(batch, type, htobe32(value)); }

void nl_put_be64(struct nl_batch *batch, uint16_t type, uint64_t value) {
  value = htobe64(value);
  nl_put(batch, type, &value, sizeof(value));
}

void nl_put_text(struct nl_batch *batch, uint16_t type, const char *text) { nl_put(batch, type, text, strlen(text) + 1); }

size_t nl_nest(struct nl_batch *batch, uint16_t type) {
  size_t start = batch->size;
  nl_put(batch, type | NLA_F_NESTED, NULL, 0);
  return start;
}

void nl_end(struct nl_batch *batch, size_t nest) {
  size_t size = batch->size - nest;
  if (size > UINT16_MAX) batch->failed = true;
  uint16_t length = (uint16_t)size;
  if (!batch->failed) memcpy(batch->bytes + nest, &length, sizeof(length));
}

static int send_batch(int fd, const struct nl_batch *batch) {
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  if (batch->failed) {
    errno = EMSGSIZE;
    return -1;
  }
  ssize_t count;
  do count = sendto(fd, batch->bytes, batch->size, 0, (struct sockaddr *)&kernel, sizeof(kernel));
  while (count < 0 && errno == EINTR);
  return count < 0 ? -1 : 0;
}

/* One datagram of the kernel's; what others send is thrown away. Returns its size, or -1. */
static ssize_t receive(int fd, uint8_t *buffer, size_t capacity) {
  for (;;) {
    struct sockaddr_nl sender = {0};
    socklen_t length = sizeof(sender);
    ssize_t count = recvfrom(fd, buffer, capacity, MSG_TRUNC, (struct sockaddr *)&sender, &length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) errno = ETIMEDOUT;
    if (count < 0) return -1;
    if (sender.nl_pid != 0) continue;
    if ((size_t)count <= capacity) return count;
    errno = EMSGSIZE;
    return -1;
  }
}

/* The errno in an NLMSG_ERROR, 0 for an acknowledgement. */
static int error_of(const struct nlmsghdr *message) {
  int code;
  if (message->nlmsg_len < NLMSG_LENGTH(sizeof(code))) return EPROTO;
  memcpy(&code, NLMSG_DATA(message), sizeof(code));
  return code <= 0 && code > -MAX_ERRNO ? -code : EPROTO;
}

int nl_transact(int fd, struct nl_batch *batch, int tolerated) {
  static _Alignas(struct nlmsghdr) uint8_t buffer[NETLINK_RECEIVE];
  int problem = 0;
  bool answered = false;
  if (send_batch(fd, batch) < 0) return -1;
  while (!answered) {
    ssize_t count = receive(fd, buffer, sizeof(buffer));
    if (count < 0) return -1;
    size_t at = 0;
    for (const struct nlmsghdr *message; (message = nl_step(buffer, (size_t)count, &at)) != NULL;) {
      /* an answer to an earlier batch, which was not waited for to its end */
      if (message->nlmsg_type != NLMSG_ERROR || (int32_t)(message->nlmsg_seq - batch->before) <= 0) continue;
      int code = error_of(message);
      if (code != 0 && code != tolerated && problem == 0) problem = code;
      if (message->nlmsg_seq == batch->awaited) answered = true;
    }
  }
  errno = problem;
  return problem == 0 ? 0 : -1;
}

int nl_query(int fd, struct nl_batch *batch, void (*each)(const uint8_t *payload, size_t size, void *context), void *context) {
  static _Alignas(struct nlmsghdr) uint8_t buffer[NETLINK_RECEIVE];
  if (send_batch(fd, batch) < 0) return -1;
  for (;;) {
    ssize_t count = receive(fd, buffer, sizeof(buffer));
    if (count < 0) return -1;
    size_t at = 0;
    for (const struct nlmsghdr *message; (message = nl_step(buffer, (size_t)count, &at)) != NULL;) {
      if (message->nlmsg_seq != batch->sequence) continue;
      if (message->nlmsg_type == NLMSG_DONE) return 0;
      if (message->nlmsg_type == NLMSG_ERROR) {
        errno = error_of(message);
        return errno == 0 ? 0 : -1;
      }
      each(NLMSG_DATA(message), message->nlmsg_len - NLMSG_HDRLEN, context);
    }
  }
}

/* Not NLMSG_NEXT, which steps beyond the end when the last message is not filled up to four bytes. */
const struct nlmsghdr *nl_step(const uint8_t *bytes, size_t size, size_t *at) {
  if (*at > size || size - *at < sizeof(struct nlmsghdr)) return NULL;
  const struct nlmsghdr *message = (const struct nlmsghdr *)(bytes + *at);
  if (message->nlmsg_len < sizeof(*message) || message->nlmsg_len > size - *at) return NULL;
  *at += NLMSG_ALIGN(message->nlmsg_len);
  return message;
}

const uint8_t *nl_find(const uint8_t *attributes, size_t size, uint16_t type, size_t *length) {
  while (size >= sizeof(struct nlattr)) {
    struct nlattr head;
    memcpy(&head, attributes, sizeof(head));
    if (head.nla_len < sizeof(head) || head.nla_len > size) return NULL;
    if ((head.nla_type & NLA_TYPE_MASK) == type) {
      *length = head.nla_len - sizeof(head);
      return attributes + sizeof(head);
    }
    size_t step = NLA_ALIGN(head.nla_len);
    if (step > size) return NULL;
    attributes += step;
    size -= step;
  }
  return NULL;
}
