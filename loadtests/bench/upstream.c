// A very cheap fake provider on loopback, in seven wire languages, told apart by the path. It says what it was asked.
//
//   upstream [lat=MS] [gap=MS] [events=N] [damage=KIND] [every=N]      prints its port, runs until it is ended
//
// lat: before the first byte; gap: between two events of a stream; events: in a stream, without [DONE] (default 64).
// Every event is one write. damage spoils every Nth answer on purpose: its nonce, text, status, it is cut, short, or
// followed by extra bytes, the order of its events is wrong, its finish reason or [DONE] (done) is missing.
#include "common.h"
#include "words.h"

enum { MOST_BODY = 4 << 20, BACKLOG = 4096, EVENTS_MIN = 6 };
enum { READING, WAITING, STREAMING, ENDING };

struct Conn;
// A wire language: which paths are asked (`streams`: what only a stream's has, NULL: the body says so), and its words.
typedef struct {
  const char *path, *streams, *kind, *answer;
  int (*event)(const struct Conn *c, int i, char *to, size_t room);
} Language;

typedef struct Conn {
  int fd, state, next_event;
  bool stream, spoilt, blocked, dead, timed;
  const Language *language;
  Buffer in, out;
  size_t sent;
  char first[NONCE_LEN + 1], last[NONCE_LEN + 1];
  uint64_t asked_ns, due_ns;
  struct Conn *earlier, *later;  // in the list of timers; `later` also in the list of the dead
} Conn;

static struct {
  double lat_ms, gap_ms;
  int events;
  const char *damage;
  long every;
} opt = {.events = 64, .damage = "", .every = 1};
static int ep;
static long answers;
static Conn *soonest, *latest, *dead;

// ---- timers: one list by due time. New ones are nearly always the latest, so the search from its end is short

static void unschedule(Conn *c) {
  if (!c->timed) return;
  *(c->earlier ? &c->earlier->later : &soonest) = c->later;
  *(c->later ? &c->later->earlier : &latest) = c->earlier;
  c->timed = false;
}

static void schedule(Conn *c, uint64_t due_ns) {
  Conn *before = latest;
  while (before != NULL && before->due_ns > due_ns) before = before->earlier;
  c->due_ns = due_ns;
  c->earlier = before;
  c->later = before ? before->later : soonest;
  *(c->later ? &c->later->earlier : &latest) = c;
  *(before ? &before->later : &soonest) = c;
  c->timed = true;
}

static void hang_up(Conn *c) {
  if (c->dead) return;
  unschedule(c);
  close(c->fd);
  c->dead = true;
  c->later = dead;  // freed when this turn's events, which may still name it, are through
  dead = c;
}

// ---- answers

// Whether this answer is to be spoilt in the way `kind`.
static bool spoil(const Conn *c, const char *kind) { return c->spoilt && strcmp(opt.damage, kind) == 0; }

static unsigned long long stamp(void) { return now_ns(); }

static const char *nonce(const Conn *c) { return spoil(c, "nonce") ? MARK "999999999999" : c->first; }

static void whole(Conn *c, int status, const char *reason, const char *body) {
  char head[1024];
  size_t n = strlen(body);
  int k = snprintf(head, sizeof head, HEAD "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status,
                   reason, n);
  put(&c->out, head, (size_t)k);
  put(&c->out, body, n);
}

static void complete(Conn *c) {
  char body[2048];
  const char *tail = spoil(c, "text") ? "The quick brown fox jumps over the lazy cat." : ANSWER_TAIL;
  if (spoil(c, "status")) {
    whole(c, 500, "Internal Server Error", "{\"error\":{\"message\":\"spoilt\"}}");
    return;
  }
  snprintf(body, sizeof body, c->language->answer, nonce(c), c->last, (unsigned long long)c->asked_ns, stamp(), tail);
  whole(c, 200, "OK", body);
  if (spoil(c, "cut")) c->out.len -= 100;
  if (spoil(c, "cut") || spoil(c, "short")) c->state = ENDING;
  if (spoil(c, "short")) c->out.len = 40;  // ends within the head
  if (spoil(c, "extra")) put(&c->out, "{}", 2);
}

// The first words are right even where the nonce is to be wrong: a client that looks at one word only does not see it.
static const char *word_nonce(const Conn *c, int i) { return i > 3 ? nonce(c) : c->first; }

// The number of the word in event `i`: in order, but for one pair when that is the damage.
static int word_number(const Conn *c, int i) {
  if (!spoil(c, "order")) return i - 1;
  return i == 2 ? 2 : i == 3 ? 1 : i - 1;
}

// Writes event `i` of a stream in OpenAI's words. Returns its length; 0 after the last.
static int openai_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3;
  if (i == 0) return snprintf(to, room, OPENAI_START);
  if (i <= words) return snprintf(to, room, OPENAI_WORD, word_number(c, i), word_nonce(c, i), stamp());
  if (i == words + 1) return snprintf(to, room, OPENAI_FINISH, spoil(c, "finish") ? "null" : "\"stop\"");
  if (i == words + 2) return snprintf(to, room, OPENAI_USAGE, words, words + 212);
  if (i == words + 3 && !spoil(c, "done")) return snprintf(to, room, "data: [DONE]\n\n");
  return 0;
}

// The same in Anthropic's words: what comes before the first word is one event here, and so is what ends the text.
static int anthropic_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3;
  if (i == 0) return snprintf(to, room, ANTHROPIC_START);
  if (i <= words) return snprintf(to, room, ANTHROPIC_WORD, word_number(c, i), word_nonce(c, i), stamp());
  if (i == words + 1) return snprintf(to, room, ANTHROPIC_FINISH, spoil(c, "finish") ? "null" : "\"end_turn\"", words);
  if (i == words + 2 && !spoil(c, "done")) return snprintf(to, room, ANTHROPIC_STOP);
  return 0;
}

// Responses: what comes before the first word is one event here.
static int responses_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3;
  if (i == 0) return snprintf(to, room, RESPONSES_START);
  if (i <= words) return snprintf(to, room, RESPONSES_WORD, word_number(c, i), word_nonce(c, i), stamp());
  if (i == words + 1 && !spoil(c, "finish")) return snprintf(to, room, RESPONSES_FINISH, words, words + 212);
  return 0;
}

// Gemini: every event is an answer of its own, and the last one has the reason why it is the last.
static int gemini_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3, said = i + 1;
  const char *reason = spoil(c, "finish") ? "null" : "\"STOP\"";
  if (i < words)
    return snprintf(to, room, GEMINI_WORD, word_number(c, said), word_nonce(c, said), stamp(), said, said + 212);
  if (i == words) return snprintf(to, room, GEMINI_FINISH, reason, words, words + 212);
  return 0;
}

// Cohere: what comes before the first word is one event here.
static int cohere_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3;
  if (i == 0) return snprintf(to, room, COHERE_START);
  if (i <= words) return snprintf(to, room, COHERE_WORD, word_number(c, i), word_nonce(c, i), stamp());
  if (i == words + 1 && !spoil(c, "finish")) return snprintf(to, room, COHERE_FINISH, words, words);
  return 0;
}

// Ollama: JSON lines.
static int ollama_event(const Conn *c, int i, char *to, size_t room) {
  int words = opt.events - 3;
  if (i < words) return snprintf(to, room, OLLAMA_WORD, word_number(c, i + 1), word_nonce(c, i + 1), stamp());
  if (i == words) return snprintf(to, room, OLLAMA_FINISH, spoil(c, "finish") ? "false" : "true", words);
  return 0;
}

static uint32_t crc32(const unsigned char *at, size_t n) {
  static uint32_t table[256];
  uint32_t sum = 0xffffffffu;
  for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
    uint32_t bits = i;
    for (int k = 0; k < 8; k++) bits = bits >> 1 ^ (bits & 1 ? 0xedb88320u : 0);
    table[i] = bits;
  }
  while (n--) sum = sum >> 8 ^ table[(sum ^ *at++) & 255];
  return ~sum;
}

static void big_endian(char *to, uint32_t number) {
  for (int k = 0; k < 4; k++) to[k] = (char)(number >> (24 - 8 * k));
}

static int name_and_text(char *to, const char *name, const char *text) {
  size_t n = strlen(name), k = strlen(text);
  to[0] = (char)n;
  memcpy(to + 1, name, n);
  to[n + 1] = 7;  // a string
  to[n + 2] = (char)(k >> 8);
  to[n + 3] = (char)k;
  memcpy(to + n + 4, text, k);
  return (int)(n + 4 + k);
}

// Writes one message of an AWS event stream: lengths and their checksum, headers, payload, checksum of it all.
static int message(char *to, const char *kind, const char *payload, size_t n) {
  int at = 12;
  at += name_and_text(to + at, ":event-type", kind);
  at += name_and_text(to + at, ":content-type", "application/json");
  at += name_and_text(to + at, ":message-type", "event");
  memcpy(to + at, payload, n);
  big_endian(to, (uint32_t)at + (uint32_t)n + 4);
  big_endian(to + 4, (uint32_t)at - 12);
  big_endian(to + 8, crc32((unsigned char *)to, 8));
  at += (int)n;
  big_endian(to + at, crc32((unsigned char *)to, (size_t)at));
  return at + 4;
}

static int bedrock_event(const Conn *c, int i, char *to, size_t room) {
  char payload[512];
  size_t most = sizeof payload;
  int words = opt.events - 3, n = 0;
  const char *kind = i == 0 ? "messageStart" : i <= words ? "contentBlockDelta" : "messageStop";
  if (i == words + 2) kind = "metadata";
  if (i == 0) n = snprintf(payload, most, BEDROCK_START);
  else if (i <= words) n = snprintf(payload, most, BEDROCK_WORD, word_number(c, i), word_nonce(c, i), stamp());
  else if (i == words + 1 && !spoil(c, "finish")) n = snprintf(payload, most, BEDROCK_FINISH);
  else if (i == words + 2) n = snprintf(payload, most, BEDROCK_USAGE, words, words + 212);
  return n && room > (size_t)n + 128 ? message(to, kind, payload, (size_t)n) : 0;
}

static const Language LANGUAGES[] = {
  {"/responses ", NULL, "text/event-stream; charset=utf-8", RESPONSES_ANSWER, responses_event},
  {"/messages ", NULL, "text/event-stream; charset=utf-8", ANTHROPIC_ANSWER, anthropic_event},
  {"enerateContent", ":streamGenerateContent", "text/event-stream", GEMINI_ANSWER, gemini_event},
  {"/converse", "/converse-stream", "application/vnd.amazon.eventstream", BEDROCK_ANSWER, bedrock_event},
  {"/api/chat ", NULL, "application/x-ndjson", OLLAMA_ANSWER, ollama_event},
  {"/chat ", NULL, "text/event-stream", COHERE_ANSWER, cohere_event},
  {"", NULL, "text/event-stream; charset=utf-8", OPENAI_ANSWER, openai_event},  // every other path
};

// Puts the next event into `out`. Returns whether there was one; the end of the framing stands behind the last.
static bool next_event(Conn *c) {
  char event[1024], size[16];
  int i = c->next_event++;
  if (spoil(c, "cut") && i == opt.events / 2) {
    c->state = ENDING;
    return false;
  }
  int n = c->language->event(c, i, event, sizeof event);
  int k = snprintf(size, sizeof size, "%x\r\n", (unsigned)n);
  put(&c->out, size, (size_t)k);
  put(&c->out, event, (size_t)n);
  put(&c->out, "\r\n", 2);
  return n > 0;
}

// ---- connections

static void read_requests(Conn *c);

// Sends what waits. Returns whether all of it went; the connection may be gone afterwards.
static bool flush(Conn *c) {
  while (c->sent < c->out.len) {
    ssize_t n = send(c->fd, c->out.at + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      if (!c->blocked) watch(ep, c->fd, EPOLL_CTL_MOD, true, c);
      c->blocked = true;
      return false;
    }
    if (n < 0) {
      hang_up(c);
      return false;
    }
    c->sent += (size_t)n;
  }
  c->out.len = c->sent = 0;
  if (c->blocked) watch(ep, c->fd, EPOLL_CTL_MOD, false, c);
  c->blocked = false;
  return true;
}

// Goes on with a connection on which nothing waits to be sent.
static void go_on(Conn *c) {
  if (c->state == ENDING) hang_up(c);
  if (c->state == STREAMING) {
    uint64_t gap_ns = (uint64_t)(opt.gap_ms * 1e6);
    schedule(c, gap_ns ? c->due_ns + gap_ns : now_ns());  // by the schedule, not by when this turn came to it
  }
  if (c->state == READING && !c->dead) read_requests(c);
}

static void step(Conn *c) {
  if (c->state == STREAMING && !next_event(c) && c->state == STREAMING) c->state = READING;
  if (flush(c)) go_on(c);
}

static void answer(Conn *c) {
  c->spoilt = *opt.damage != 0 && ++answers % opt.every == 0;
  c->state = READING;
  if (!c->stream || spoil(c, "status")) {
    complete(c);
  } else {
    char head[1024];
    int n = snprintf(head, sizeof head, HEAD "Content-Type: %s\r\n"
                     "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "OK", c->language->kind);
    put(&c->out, head, (size_t)n);
    c->state = STREAMING;
    c->next_event = 0;
    c->due_ns = now_ns();
  }
  step(c);
}

// Copies the first and the last nonce of the request.
static void note_nonces(Conn *c, const char *body, const char *end) {
  const char *first = memchr(body, MARK[0], (size_t)(end - body)), *last = memrchr(body, MARK[0], (size_t)(end - body));
  strcpy(c->first, MARK "000000000000");
  strcpy(c->last, c->first);
  if (first != NULL && end - first >= NONCE_LEN) memcpy(c->first, first, NONCE_LEN);
  if (last != NULL && end - last >= NONCE_LEN) memcpy(c->last, last, NONCE_LEN);
}

static void ask(Conn *c, const char *body, const char *end) {
  const char *line_end = memchr(c->in.at, '\r', c->in.len);
  size_t line = (size_t)(line_end - c->in.at), n = (size_t)(end - body);
  const Language *spoken = LANGUAGES;
  while (memmem(c->in.at, line, spoken->path, strlen(spoken->path)) == NULL) spoken++;
  c->language = spoken;
  if (spoken->streams) c->stream = memmem(c->in.at, line, spoken->streams, strlen(spoken->streams)) != NULL;
  else c->stream = memmem(body, n, "\"stream\":true", 13) || memmem(body, n, "\"stream\": true", 14);
  note_nonces(c, body, end);
  c->asked_ns = now_ns();
  c->state = WAITING;
  if (memcmp(c->in.at, "POST ", 5) != 0) {  // a gateway's look whether anyone is there, or for models
    c->state = READING;
    whole(c, 200, "OK", "{\"object\":\"list\",\"data\":[]}");
    flush(c);
  }
}

// Answers the request at the head of what was read, if it is whole, and so on.
static void read_requests(Conn *c) {
  while (!c->dead && c->state == READING && c->out.len == 0) {
    char *gap = c->in.len ? memmem(c->in.at, c->in.len, "\r\n\r\n", 4) : NULL;
    if (gap == NULL) return;
    char *body = gap + 4;
    const char *length = header(c->in.at, gap, "content-length");
    size_t n = length ? strtoul(length, NULL, 10) : 0, have = c->in.len - (size_t)(body - c->in.at);
    if (n > MOST_BODY || header(c->in.at, gap, "transfer-encoding")) {
      whole(c, 411, "Length Required", "{}");
      c->state = ENDING;
      if (flush(c)) go_on(c);
      return;
    }
    if (have < n) return;
    ask(c, body, body + n);
    if (c->dead) return;
    memmove(c->in.at, body + n, have - n);
    c->in.len = have - n;
    if (c->state != WAITING) continue;
    if (opt.lat_ms > 0)
      schedule(c, c->asked_ns + (uint64_t)(opt.lat_ms * 1e6));
    else
      answer(c);
  }
}

static void on_readable(Conn *c) {
  for (;;) {
    size_t room = 65536;
    ssize_t n = recv(c->fd, grow(&c->in, room), room, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
      hang_up(c);
      return;
    }
    if (n > 0) c->in.len += (size_t)n;
    if (n < (ssize_t)room) break;
  }
  read_requests(c);
}

static void accept_all(int listener) {
  for (int i = 0; i < 256; i++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    Conn *c = calloc(1, sizeof *c);
    if (c == NULL) die("memory");
    c->fd = fd;
    no_delay(fd);
    watch(ep, fd, EPOLL_CTL_ADD, false, c);
  }
}

static int listen_anywhere(void) {
  struct sockaddr_in a = loopback(0);
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (void *)&a, sizeof a) || listen(fd, BACKLOG) || getsockname(fd, (void *)&a, &n)) die("listen");
  printf("%d\n", ntohs(a.sin_port));
  fflush(stdout);
  return fd;
}

static void options(int count, char **words) {
  for (int i = 1; i < count; i++) {
    char *value = strchr(words[i], '=');
    if (value == NULL) value = words[i] + strlen(words[i]) - 1;
    size_t n = (size_t)(++value - words[i]);
    if (strncmp(words[i], "lat=", n) == 0) opt.lat_ms = atof(value);
    else if (strncmp(words[i], "gap=", n) == 0) opt.gap_ms = atof(value);
    else if (strncmp(words[i], "events=", n) == 0) opt.events = atoi(value);
    else if (strncmp(words[i], "damage=", n) == 0) opt.damage = value;
    else if (strncmp(words[i], "every=", n) == 0) opt.every = atol(value);
    else fprintf(stderr, "unknown option %s\n", words[i]), exit(2);
  }
  if (opt.events < EVENTS_MIN || opt.events > 90000 || opt.every < 1) fprintf(stderr, "events or every\n"), exit(2);
}

static void turn(int listener) {
  struct epoll_event events[512];
  uint64_t t = now_ns(), wait_ns = soonest && soonest->due_ns > t ? soonest->due_ns - t : 0;
  struct timespec wait = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
  int n = epoll_pwait2(ep, events, 512, soonest ? &wait : NULL, NULL);
  for (int i = 0; i < n; i++) {
    Conn *c = events[i].data.ptr;
    if (c == NULL) {
      accept_all(listener);
      continue;
    }
    if (!c->dead && c->blocked && (events[i].events & EPOLLOUT) && flush(c)) go_on(c);
    if (!c->dead && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_readable(c);
  }
  for (t = now_ns(); soonest != NULL && soonest->due_ns <= t;) {
    Conn *c = soonest;
    unschedule(c);
    if (c->state == WAITING) answer(c);
    else step(c);
  }
  while (dead != NULL) {
    Conn *c = dead;
    dead = c->later;
    free(c->in.at), free(c->out.at), free(c);
  }
}

int main(int count, char **words) {
  signal(SIGPIPE, SIG_IGN);
  options(count, words);
  if ((ep = epoll_create1(0)) < 0) die("epoll");
  int listener = listen_anywhere();
  watch(ep, listener, EPOLL_CTL_ADD, false, NULL);
  for (;;) turn(listener);
}
