/* Messages to the kernel's netlink families: built in a buffer of the caller's, sent in one call, and waited for. Source: netlink(7) */
#ifndef SQ_NETLINK_H
#define SQ_NETLINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failure.h"

enum { NETLINK_RECEIVE = 32 * 1024 };

/* Messages on their way; `failed` is set when they do not fit. */
struct nl_batch {
  uint8_t *bytes;
  size_t capacity, size;
  size_t message;           /* where the open message starts */
  uint32_t before, sequence; /* numbers of the last message before the batch, and of the last one in it */
  uint32_t awaited;          /* number of the last message that asked for an acknowledgement */
  bool failed;
};

/* A socket of the given netlink protocol in the network namespace of the calling thread, or -1. Waits at most a few seconds for answers. */
int nl_open(int protocol, struct failure *failure);

void nl_start(struct nl_batch *batch, void *bytes, size_t capacity);

/* Opens a message of `type` with its family's own header; returns a pointer to the copy of that header, or NULL when there is no room. */
void *nl_message(struct nl_batch *batch, uint16_t type, uint16_t flags, const void *header, size_t size);

void nl_put(struct nl_batch *batch, uint16_t type, const void *data, size_t size);
void nl_put_u8(struct nl_batch *batch, uint16_t type, uint8_t value);
void nl_put_u32(struct nl_batch *batch, uint16_t type, uint32_t value);
void nl_put_be32(struct nl_batch *batch, uint16_t type, uint32_t value);
void nl_put_be64(struct nl_batch *batch, uint16_t type, uint64_t value);
void nl_put_text(struct nl_batch *batch, uint16_t type, const char *text);

/* Opens an attribute that holds others; returns what nl_end needs. */
size_t nl_nest(struct nl_batch *batch, uint16_t type);
void nl_end(struct nl_batch *batch, size_t nest);

/*
 * Sends the batch and waits for the answer to the last message in it that asked for one with NLM_F_ACK, which comes after all others. Returns
 * 0, or -1 with the first errno that the kernel answered. `tolerated` is an errno that is fine, or 0.
 */
int nl_transact(int fd, struct nl_batch *batch, int tolerated);

/*
 * Sends the batch, which asks for a dump or for one object, and calls `each` with the payload of every message that answers it. Returns 0 at
 * the end of the answer, or -1 with errno.
 */
int nl_query(int fd, struct nl_batch *batch, void (*each)(const uint8_t *payload, size_t size, void *context), void *context);

/* The message at `*at` among `size` bytes of messages, and moves `*at` behind it; NULL when no whole one is left. */
const struct nlmsghdr *nl_step(const uint8_t *bytes, size_t size, size_t *at);

/* The payload of the attribute of that type among `size` bytes of attributes, or NULL; `length` is that of the payload. */
const uint8_t *nl_find(const uint8_t *attributes, size_t size, uint16_t type, size_t *length);

#endif
