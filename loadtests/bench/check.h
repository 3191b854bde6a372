// What makes an answer right: its framing, its nonces, every word, an end. Each way to be wrong has a name.
#pragma once
#include "common.h"

enum { FINE, CONNECT, STATUS, FRAMING, CUT, NONCE, TEXT, ORDER, FINISH, DONE, TIMEOUT, KINDS };
static const char *const KIND_NAMES[KINDS] = {"fine", "connect", "status", "framing", "cut", "nonce",
                                              "text", "order", "finish", "done", "timeout"};

enum { IN_HEAD, IN_LENGTH, IN_CHUNK_SIZE, IN_CHUNK, IN_CHUNK_END, IN_TRAILER, WHOLE };

// One answer, as far as it has come.
typedef struct {
  int part, status, wrong;
  bool close;
  size_t left, line, line_len;  // bytes of this part still to come; begin of the next line; length of a trailer's line
  Buffer head, body;
  char nonce[NONCE_LEN + 1];
  int words, events;
  bool finished, usage, done;
  uint64_t first_ns, inside_ns;  // when the first word came; how long the upstream says it took
} Answer;

// Called once per word of a stream with the moment the upstream wrote it.
typedef void WordSeen(uint64_t written_ns);

static inline void expect(Answer *a, unsigned long number) {
  Buffer head = a->head, body = a->body;
  head.len = body.len = 0;
  *a = (Answer){.head = head, .body = body};
  snprintf(a->nonce, sizeof a->nonce, MARK "%012lu", number % 1000000000000u);
}

static inline void wrong(Answer *a, int kind) {
  if (a->wrong == FINE) a->wrong = kind;  // the first thing that is wrong names it
}

// ---- framing

static inline void read_head(Answer *a) {
  char *at = a->head.at, *end = at + a->head.len;
  const char *length = header(at, end, "content-length"), *coding = header(at, end, "transfer-encoding");
  const char *connection = header(at, end, "connection");
  bool chunked = coding != NULL && strncasecmp(coding, "chunked", 7) == 0;
  if (strncmp(at, "HTTP/1.1 ", 9) != 0 || chunked == (length != NULL)) wrong(a, FRAMING);
  a->status = atoi(at + 9);
  a->close = connection != NULL && strncasecmp(connection, "close", 5) == 0;
  a->left = length ? strtoul(length, NULL, 10) : 0;
  a->part = chunked ? IN_CHUNK_SIZE : a->left ? IN_LENGTH : WHOLE;
  if (a->status != 200) wrong(a, STATUS);
}

static inline int hex(char byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  byte |= 32;
  return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

// Takes a byte of what stands around chunks.
static inline void take_framing(Answer *a, char byte) {
  if (a->part == IN_CHUNK_SIZE) {
    int digit = hex(byte);
    if (digit >= 0) a->left = a->left * 16 + (size_t)digit, a->line_len++;
    else if (byte != '\r' && byte != '\n') wrong(a, FRAMING);
    if (byte == '\n' && a->line_len == 0) wrong(a, FRAMING);
    if (byte == '\n') a->part = a->left ? IN_CHUNK : IN_TRAILER, a->line_len = 0;
  } else if (a->part == IN_CHUNK_END) {
    if (byte != '\r' && byte != '\n') wrong(a, FRAMING);
    if (byte == '\n') a->part = IN_CHUNK_SIZE;
  } else if (byte == '\n') {
    a->part = a->line_len == 0 ? WHOLE : a->part;
    a->line_len = 0;
  } else if (byte != '\r') {
    a->line_len++;
  }
}

// Takes the bytes of one part from `at`. Returns how many.
static inline size_t take(Answer *a, const char *at, size_t n) {
  if (a->part == IN_LENGTH || a->part == IN_CHUNK) {
    size_t k = n < a->left ? n : a->left;
    put(&a->body, at, k);
    a->left -= k;
    if (a->left == 0) a->part = a->part == IN_LENGTH ? WHOLE : IN_CHUNK_END;
    return k;
  }
  if (a->part == IN_HEAD) {
    // A head nearly always comes in one piece; if not, byte by byte is fast enough.
    const char *end = a->head.len ? NULL : memmem(at, n, "\r\n\r\n", 4);
    size_t k = end ? (size_t)(end + 4 - at) : 1;
    put(&a->head, at, k);
    size_t len = a->head.len;
    if (len > 16384) wrong(a, FRAMING);
    if (len >= 4 && memcmp(a->head.at + len - 4, "\r\n\r\n", 4) == 0) read_head(a);
    return k;
  }
  take_framing(a, *at);
  return 1;
}

// ---- words

static inline const char *find(const char *at, size_t n, const char *what) { return memmem(at, n, what, strlen(what)); }

// Returns what follows `key`, which ends with its colon, and the space that JSON allows there, or NULL.
static inline const char *value(const char *at, size_t n, const char *key) {
  const char *found = find(at, n, key);
  if (found == NULL) return NULL;
  for (found += strlen(key); *found == ' ';) found++;
  return found;
}

static inline bool ends_well(const char *reason, bool anthropic) {
  return anthropic ? strncmp(reason, "\"end_turn\"", 10) == 0 : strncmp(reason, "\"stop\"", 6) == 0;
}

// A word is w, its number, the nonce, a stamp. The first one is what a user waits for: what comes before it, a role,
// may be held back until then, because once a client was told anything no other provider can be asked.
static inline void check_word(Answer *a, const char *word, WordSeen *seen) {
  int number = atoi(word + 1);
  if (number != a->words) wrong(a, ORDER);
  if (memcmp(word + 7, a->nonce, NONCE_LEN) != 0) wrong(a, NONCE);
  if (a->words++ == 0) a->first_ns = now_ns();
  seen(strtoull(word + 8 + NONCE_LEN, NULL, 10));
}

static inline void check_event(Answer *a, const char *event, size_t n, bool anthropic, WordSeen *seen) {
  a->events++;
  if (a->done) wrong(a, DONE);  // nothing may follow the end
  if (n == 6 && memcmp(event, "[DONE]", 6) == 0) {
    a->done = true;
    return;
  }
  if (n < 2 || event[0] != '{' || event[n - 1] != '}') {
    wrong(a, TEXT);
    return;
  }
  const char *text = value(event, n, anthropic ? "\"text\":" : "\"content\":");
  if (text != NULL && text + 9 + NONCE_LEN + STAMP_LEN < event + n && text[0] == '"' && text[1] == 'w')
    check_word(a, text + 1, seen);
  else if (text != NULL && strncmp(text, "\"\"", 2) != 0 && strncmp(text, "null", 4) != 0)
    wrong(a, TEXT);
  const char *reason = value(event, n, anthropic ? "\"stop_reason\":" : "\"finish_reason\":");
  if (reason != NULL && ends_well(reason, anthropic)) a->finished = true;
  if (find(event, n, anthropic ? "\"output_tokens\":" : "\"total_tokens\":")) a->usage = true;
  if (anthropic && find(event, n, "\"message_stop\"")) a->done = true;
}

// Checks the lines of a stream that are whole by now.
static inline void check_lines(Answer *a, bool anthropic, WordSeen *seen) {
  while (a->line < a->body.len) {
    const char *line = a->body.at + a->line, *end = memchr(line, '\n', a->body.len - a->line);
    if (end == NULL) return;
    a->line += (size_t)(end + 1 - line);
    if (end > line && end[-1] == '\r') end--;
    if (end - line < 6 || memcmp(line, "data: ", 6) != 0) continue;
    check_event(a, line + 6, (size_t)(end - line - 6), anthropic, seen);
  }
}

// Judges a stream that is whole by its framing.
static inline void check_stream(Answer *a, int words) {
  if (a->words != words) wrong(a, ORDER);
  if (!a->finished || !a->usage) wrong(a, FINISH);
  if (!a->done || a->line != a->body.len) wrong(a, DONE);
}

// Judges a complete answer that is whole by its framing: both nonces, two stamps, the text to its end.
static inline void check_complete(Answer *a, bool anthropic) {
  const char *body = a->body.at;
  size_t n = a->body.len, text = 2 * (NONCE_LEN + STAMP_LEN + 2), tail = strlen(ANSWER_TAIL);
  while (n && (body[n - 1] == '\n' || body[n - 1] == ' ')) n--;
  const char *said = find(body, n, anthropic ? "\"text\":\"" MARK : "\"content\":\"" MARK);
  if (said == NULL) said = find(body, n, "\"content\": \"" MARK);
  if (said == NULL || body + n - said < (ptrdiff_t)(16 + text + tail) || body[0] != '{' || body[n - 1] != '}') {
    wrong(a, TEXT);
    return;
  }
  said = memchr(said, MARK[0], 20);
  if (memcmp(said, a->nonce, NONCE_LEN) != 0 || memcmp(said + NONCE_LEN + 1, a->nonce, NONCE_LEN) != 0)
    wrong(a, NONCE);
  const char *stamp = said + 2 * (NONCE_LEN + 1);
  a->inside_ns = strtoull(stamp + STAMP_LEN + 1, NULL, 10) - strtoull(stamp, NULL, 10);
  if (memcmp(said + text, ANSWER_TAIL "\"", tail + 1) != 0) wrong(a, TEXT);
  const char *reason = value(body, n, anthropic ? "\"stop_reason\":" : "\"finish_reason\":");
  if (reason == NULL || !ends_well(reason, anthropic)) wrong(a, FINISH);
  if (!find(body, n, anthropic ? "\"output_tokens\":" : "\"total_tokens\":")) wrong(a, FINISH);
}
