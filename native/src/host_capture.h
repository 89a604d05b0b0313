/*
 * sq-host's side of what goes through all files of a sandbox: captures, comparisons, and the forgetting of originals. The request, and the process that
 * does it, which has nothing but the directories and the output's file.
 */
#ifndef SQ_HOST_CAPTURE_H
#define SQ_HOST_CAPTURE_H

#include "host_ops.h"

/* OP_CAPTURE, OP_COMPARE and OP_UPPER_FORGET. At most MAX_CAPTURES run at a time; one more fails with EAGAIN. */
enum outcome op_capture(struct host *host, uint32_t request, uint16_t type, struct reader *reader, struct failure *failure);

/* A capture has reported, or has died. */
void host_captured(struct host *host, uint32_t job);

#endif
