/* Addresses of both families. */
#ifndef SQ_ADDRESS_H
#define SQ_ADDRESS_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "frame.h"

enum { ADDRESS_SIZE = 16, ADDRESS_WORDS = 4 };

/* IPv6, or IPv4 as ::ffff:a.b.c.d, which no packet has for an address of its own; all zeroes: none. */
struct address {
  uint8_t bytes[ADDRESS_SIZE];
};

static inline struct address address_of_ipv4(uint32_t number) {
  struct address address = {.bytes = {[10] = 0xff, [11] = 0xff}};
  uint32_t bytes = htobe32(number);
  memcpy(address.bytes + 12, &bytes, sizeof(bytes));
  return address;
}

static inline bool address_equal(const struct address *a, const struct address *b) { return memcmp(a, b, sizeof(*a)) == 0; }

static inline bool address_is_ipv4(const struct address *address) {
  const struct address zero = address_of_ipv4(0);
  return memcmp(address, &zero, 12) == 0;
}

static inline bool address_is_none(const struct address *address) {
  const struct address none = {.bytes = {0}};
  return address_equal(address, &none);
}

/* The last four bytes: of IPv4 the whole address, in the host's byte order. */
static inline uint32_t address_low(const struct address *address) {
  uint32_t bytes;
  memcpy(&bytes, address->bytes + 12, sizeof(bytes));
  return be32toh(bytes);
}

/* The address so much behind `first`, whose last four bytes have room for it. */
static inline struct address address_behind(const struct address *first, uint32_t distance) {
  struct address address = *first;
  uint32_t bytes = htobe32(address_low(first) + distance);
  memcpy(address.bytes + 12, &bytes, sizeof(bytes));
  return address;
}

/* On the wire an address is four numbers. */
static inline struct address read_address(struct reader *reader) {
  struct address address;
  for (int i = 0; i < ADDRESS_WORDS; i++) {
    uint32_t word = htobe32(read_u32(reader));
    memcpy(address.bytes + (size_t)i * sizeof(word), &word, sizeof(word));
  }
  return address;
}

static inline void write_address(struct writer *writer, const struct address *address) {
  for (int i = 0; i < ADDRESS_WORDS; i++) {
    uint32_t word;
    memcpy(&word, address->bytes + (size_t)i * sizeof(word), sizeof(word));
    write_u32(writer, be32toh(word));
  }
}

#endif
