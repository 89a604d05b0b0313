/* sq-host's side of a capture: the request, and the process that does it, which has nothing but the directories and the image's file. */
#ifndef SQ_HOST_CAPTURE_H
#define SQ_HOST_CAPTURE_H

#include "host_ops.h"

/* At most MAX_CAPTURES run at a time; one more fails with EAGAIN. */
enum outcome op_capture(struct host *host, uint32_t request, struct reader *reader, struct failure *failure);

/* A capture has reported, or has died. */
void host_captured(struct host *host, uint32_t job);

#endif
