/* Streams and events. A stream is a queue served by one worker thread, started with the
 * first asynchronous work. */
#ifndef TNI_CORE_STREAM_H
#define TNI_CORE_STREAM_H

#include "core/array.h"

typedef struct tni_event {
    _Atomic int32_t refs;
    _Atomic int32_t done; /* 1 once everything it stands for has run or failed */
    tn_stream *stream;
} tni_event;

tni_event *tni_event_new(tn_stream *s); /* refs 1; NULL when out of memory */
void tni_event_retain(tni_event *e);
void tni_event_release(tni_event *e);
void tni_event_signal(tni_event *e);
void tni_event_wait(
    tni_event *e); /* blocks; returns at once when called on the event's own worker */

tn_stream *tni_stream_current(void);
/* Queues fn(ud) on the stream's worker; 0 or TN_EMEMORY. fn is always called once. */
int tni_stream_submit(tn_stream *s, void (*fn)(void *ud), void *ud);
/* Keeps the earliest failure of a stream until tn_wait reports it. */
void tni_stream_poison(tn_stream *s, int status, const char *message);

#endif
