/*
 * Sends whole packets and frames as they are given, and hears what arrives: what a sandbox's owner would do who had raw sockets.
 * Usage: raw ip TIMES            sends IPv4 packets, headers included, from lines of hex on standard input
 *        raw frame IFACE TIMES   the same with Ethernet frames
 *        raw hear IFACE          prints "ready", then every frame that arrives as a line of hex
 * Prints "sent N", or "refused: ERRNO" (status 1) where a socket or a packet is not to be had.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PACKETS = 64, MAX_SIZE = 4096, ALL_PROTOCOLS = 0x0003 };

static struct {
  unsigned char bytes[MAX_SIZE];
  size_t size;
} packets[MAX_PACKETS];

static _Noreturn void refused(const char *what) {
  const char *name = errno == EPERM ? "EPERM" : errno == EACCES ? "EACCES" : errno == EAFNOSUPPORT ? "EAFNOSUPPORT" : strerror(errno);
  (void)printf("refused: %s\n", name);
  (void)fprintf(stderr, "raw: %s\n", what);
  exit(1);
}

static size_t read_packets(void) {
  static char line[2 * MAX_SIZE + 2];
  size_t count = 0;
  while (count < MAX_PACKETS && fgets(line, sizeof(line), stdin) != NULL) {
    unsigned byte;
    size_t size = 0;
    while (sscanf(line + 2 * size, "%2x", &byte) == 1) packets[count].bytes[size++] = (unsigned char)byte;
    packets[count++].size = size;
  }
  return count;
}

static void send_all(int fd, const struct sockaddr *fixed, socklen_t length, long times) {
  size_t count = read_packets();
  long sent = 0;
  for (long i = 0; i < times; i++) {
    for (size_t j = 0; j < count; j++) {
      struct sockaddr_in target = {.sin_family = AF_INET};
      memcpy(&target.sin_addr, packets[j].bytes + 16, sizeof(target.sin_addr));
      const struct sockaddr *to = fixed == NULL ? (const struct sockaddr *)&target : fixed;
      if (sendto(fd, packets[j].bytes, packets[j].size, 0, to, fixed == NULL ? sizeof(target) : length) >= 0) sent++;
      else if (errno != ENOBUFS) refused("send");
    }
  }
  (void)printf("sent %ld\n", sent);
}

static void send_ip(long times) {
  int on = 1, fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  if (fd < 0) refused("socket");
  if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)) < 0) refused("setsockopt");
  send_all(fd, NULL, 0, times);
}

static int packet_socket(const char *interface, struct sockaddr_ll *address) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ALL_PROTOCOLS));
  if (fd < 0) refused("socket");
  *address = (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_protocol = htons(ALL_PROTOCOLS)};
  address->sll_ifindex = (int)if_nametoindex(interface);
  if (address->sll_ifindex == 0) refused("interface");
  if (bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0) refused("bind");
  return fd;
}

static void hear(const char *interface) {
  static unsigned char bytes[MAX_SIZE];
  struct sockaddr_ll address;
  int fd = packet_socket(interface, &address);
  (void)puts("ready");
  (void)fflush(stdout);
  for (;;) {
    struct sockaddr_ll from;
    socklen_t length = sizeof(from);
    ssize_t size = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length);
    if (size < 0) refused("receive");
    if (from.sll_pkttype == PACKET_OUTGOING) continue;
    for (ssize_t i = 0; i < size; i++) (void)printf("%02x", bytes[i]);
    (void)putchar('\n');
    (void)fflush(stdout);
  }
}

int main(int count, char **arguments) {
  struct sockaddr_ll address;
  if (count == 3 && strcmp(arguments[1], "ip") == 0) send_ip(strtol(arguments[2], NULL, 10));
  else if (count == 4 && strcmp(arguments[1], "frame") == 0) {
    int fd = packet_socket(arguments[2], &address);
    send_all(fd, (struct sockaddr *)&address, sizeof(address), strtol(arguments[3], NULL, 10));
  } else if (count == 3 && strcmp(arguments[1], "hear") == 0) hear(arguments[2]);
  else {
    (void)fputs("raw: usage: raw ip TIMES | raw frame IFACE TIMES | raw hear IFACE\n", stderr);
    return 2;
  }
  return 0;
}
