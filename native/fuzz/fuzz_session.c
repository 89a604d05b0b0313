/* What squashd tells a session: a frame header, then an exec request; and what a sandbox has in /etc/passwd. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/exec_request.h"
#include "../src/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct exec_request request;
  struct frame_header header;
  if (size < FRAME_HEADER_SIZE || size > FRAME_MAX_PAYLOAD) return 0;
  (void)frame_decode(data, &header);
  /* Copies of exactly the right size, so that the sanitizer sees any step beyond them. */
  size_t rest = size - FRAME_HEADER_SIZE;
  uint8_t *payload = malloc(rest);
  if (payload == NULL) return 0;
  memcpy(payload, data + FRAME_HEADER_SIZE, rest);
  struct reader reader = {.data = payload, .size = rest};
  if (exec_request_decode(&request, &reader)) {
    size_t total = strlen(request.user) + strlen(request.workdir);
    for (uint32_t i = 0; i < request.argc; i++) total += strlen(request.argv[i]);
    for (uint32_t i = 0; i < request.envc; i++) total += strlen(request.env[i]);
    if (total > rest || request.argv[request.argc] != NULL || request.env[request.envc] != NULL) abort();
  }
  free(payload);
  char *line = malloc(rest + 1);
  if (line == NULL) return 0;
  memcpy(line, data + FRAME_HEADER_SIZE, rest);
  line[rest] = '\0';
  struct account account = {0};
  if (passwd_line_decode(line, &account) && (account.uid >= 65536 || account.home[0] != '/')) abort();
  free(line);
  return 0;
}
