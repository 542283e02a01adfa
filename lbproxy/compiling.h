/* The words of compiling.py, for modules that are compiled. There, in Python, stands what each of them is. */

#include <Python.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* memcpy of a fixed size is one load. Octets are in the order of a little-endian machine. */
static inline int64_t lbproxy_word_at(PyObject *data, int64_t at) {
    int64_t word;
    if (at < 0 || at > (int64_t)PyBytes_GET_SIZE(data) - 8)
        return -1;
    memcpy(&word, PyBytes_AS_STRING(data) + at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = (int64_t)__builtin_bswap64((uint64_t)word);
#endif
    return word;
}

static inline int64_t lbproxy_value_end(PyObject *data, int64_t at) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(data);
    int64_t size = PyBytes_GET_SIZE(data);
#ifdef __SSE2__
    for (; at <= size - 16; at += 16) {
        __m128i found = _mm_loadu_si128((const __m128i *)(octets + at));
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(found, _mm_set1_epi8(0x1f)), found);
        __m128i control = _mm_andnot_si128(_mm_cmpeq_epi8(found, _mm_set1_epi8('\t')), low);
        int odd = _mm_movemask_epi8(_mm_or_si128(control, _mm_cmpeq_epi8(found, _mm_set1_epi8(0x7f))));
        if (odd)
            return at + __builtin_ctz((unsigned)odd);
    }
#endif
    while (at < size && (octets[at] >= ' ' ? octets[at] != 0x7f : octets[at] == '\t'))
        at++;
    return at;
}

static inline int64_t lbproxy_visible_end(PyObject *data, int64_t at) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(data);
    int64_t size = PyBytes_GET_SIZE(data);
#ifdef __SSE2__
    for (; at <= size - 16; at += 16) {
        __m128i found = _mm_loadu_si128((const __m128i *)(octets + at));
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(found, _mm_set1_epi8(0x20)), found);
        __m128i high = _mm_cmpeq_epi8(_mm_max_epu8(found, _mm_set1_epi8(0x7f)), found);
        int odd = _mm_movemask_epi8(_mm_or_si128(low, high));
        if (odd)
            return at + __builtin_ctz((unsigned)odd);
    }
#endif
    while (at < size && octets[at] > ' ' && octets[at] < 0x7f)
        at++;
    return at;
}

static inline int64_t lbproxy_line_end(PyObject *data, int64_t colon) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(data);
    int64_t size = PyBytes_GET_SIZE(data);
    int64_t at = lbproxy_value_end(data, colon + 1);
    if (at >= size)
        return -1;
    if (octets[at] != '\r')
        return -2;
    if (at + 1 >= size)
        return -1;
    if (octets[at + 1] != '\n')
        return -2;
    return at << 1 |
           (at > colon + 2 && octets[colon + 1] == ' ' && octets[colon + 2] > ' ' && octets[at - 1] > ' ');
}

/* Names as they are usually sent (Names in protocol/field_lines.py): 512 places of two octets, which say where a row of
   names begins, and names of eight words: how they begin, the octets of that which count, the next two words, how they
   end, the size, the kind, the next of the row, which stands behind. Numbers begin with 1, and 0 is none. */
#define LBPROXY_PLACES 512
#define LBPROXY_NAME 64

static inline int64_t lbproxy_load(const char *from) {
    int64_t word;
    memcpy(&word, from, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = (int64_t)__builtin_bswap64((uint64_t)word);
#endif
    return word;
}

static inline int64_t lbproxy_spelling_at(PyObject *data, int64_t at, PyObject *names) {
    const char *table = PyBytes_AS_STRING(names), *octets = PyBytes_AS_STRING(data);
    int64_t left = (int64_t)PyBytes_GET_SIZE(data) - at, n = (int64_t)PyBytes_GET_SIZE(names) - 2 * LBPROXY_PLACES;
    if (at < 0 || left < 8 || n < LBPROXY_NAME)
        return 0;
    n /= LBPROXY_NAME;
    int64_t word = lbproxy_load(octets + at);
    int64_t row = (word ^ word >> 9 ^ word >> 18) & (LBPROXY_PLACES - 1);
    const unsigned char *place = (const unsigned char *)table + 2 * row;
    int64_t number = place[0] | place[1] << 8;
    while (number > 0 && number <= n) {
        const char *name = table + 2 * LBPROXY_PLACES + (number - 1) * LBPROXY_NAME;
        if ((word & lbproxy_load(name + 8)) == lbproxy_load(name)) {
            int64_t size = lbproxy_load(name + 40);
            const char *there = octets + at;
            if (size < 8 ||
                (left > size && size < 32 && lbproxy_load(there + size - 7) == lbproxy_load(name + 32) &&
                 (size < 16 || lbproxy_load(there + 8) == lbproxy_load(name + 16)) &&
                 (size < 24 || lbproxy_load(there + 16) == lbproxy_load(name + 24))))
                return number;
        }
        int64_t next = lbproxy_load(name + 56);
        number = next > number ? next : 0;
    }
    return 0;
}

static inline int64_t lbproxy_passed(PyObject *data, int64_t at, PyObject *names) {
    int64_t n_lines = 0, number = 0;
    while (n_lines < 4095) {
        number = lbproxy_spelling_at(data, at, names);
        if (number == 0)
            break;
        const char *name = PyBytes_AS_STRING(names) + 2 * LBPROXY_PLACES + (number - 1) * LBPROXY_NAME;
        if (lbproxy_load(name + 48) != 0)
            break;
        int64_t found = lbproxy_line_end(data, at + lbproxy_load(name + 40));
        if (found < 0 || (found & 1) == 0)
            break;
        at = (found >> 1) + 2;
        n_lines++;
        number = 0;
    }
    return at << 24 | n_lines << 12 | (number & 4095);
}

static inline int64_t lbproxy_token_at(PyObject *data, int64_t at, PyObject *table) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(data);
    const unsigned char *becomes = (const unsigned char *)PyBytes_AS_STRING(table);
    int64_t size = PyBytes_GET_SIZE(data), sum = 0, seen = 0;
    if (at < 0 || PyBytes_GET_SIZE(table) < 256)
        return -1;
    for (; at < size; at++) {
        int64_t octet = becomes[octets[at]];
        if (octet == 0)
            return at << 11 | (seen & 128) << 3 | (sum & 1023);
        sum += octet;
        seen |= octet;
    }
    return -1;
}

static inline char lbproxy_has_at(PyObject *data, int64_t at, PyObject *octets) {
    int64_t size = PyBytes_GET_SIZE(octets);
    return at >= 0 && at <= (int64_t)PyBytes_GET_SIZE(data) - size &&
           memcmp(PyBytes_AS_STRING(data) + at, PyBytes_AS_STRING(octets), (size_t)size) == 0;
}

static inline char lbproxy_has_octet(PyObject *data, int64_t start, int64_t end, int64_t octet) {
    int64_t size = PyBytes_GET_SIZE(data);
    end = end > size ? size : end;
    return start >= 0 && start < end &&
           memchr(PyBytes_AS_STRING(data) + start, (int)octet, (size_t)(end - start)) != NULL;
}

/* ASCII, as nearly all of it is, needs no look for the widest letter. */
static inline PyObject *lbproxy_text_of(PyObject *data, int64_t start, int64_t end) {
    int64_t size = PyBytes_GET_SIZE(data);
    end = end > size ? size : end;
    size = start < end ? end - start : 0;
    const char *octets = PyBytes_AS_STRING(data) + (size ? start : 0);
#ifdef __SSE2__
    if (size >= 16) {
        __m128i all = _mm_loadu_si128((const __m128i *)(octets + size - 16));
        for (int64_t at = 0; at < size - 16; at += 16)
            all = _mm_or_si128(all, _mm_loadu_si128((const __m128i *)(octets + at)));
        if (_mm_movemask_epi8(all) == 0) {
            PyObject *text = PyUnicode_New(size, 0x7f);
            if (text != NULL)
                memcpy(PyUnicode_1BYTE_DATA(text), octets, (size_t)size);
            return text;
        }
    }
#endif
    return PyUnicode_DecodeLatin1(octets, size, NULL);
}

static inline PyObject *lbproxy_cut(PyObject *data, int64_t start, int64_t end) {
    int64_t size = PyBytes_GET_SIZE(data);
    end = end > size ? size : end;
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + (start < end ? start : 0), start < end ? end - start : 0);
}

/* Most pieces are of a few octets, for which a call costs more than the copy. Of up to 32 some are copied twice, all of
   them within the piece. */
static inline char *lbproxy_put(char *to, const char *from, size_t n) {
    if (n > 32)
        memcpy(to, from, n);
#ifdef __SSE2__
    else if (n >= 16) {
        __m128i first = _mm_loadu_si128((const __m128i *)from);
        __m128i last = _mm_loadu_si128((const __m128i *)(from + n - 16));
        _mm_storeu_si128((__m128i *)to, first);
        _mm_storeu_si128((__m128i *)(to + n - 16), last);
    }
#else
    else if (n >= 16)
        memcpy(to, from, n);
#endif
    else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else if (n) {
        to[0] = from[0];
        to[n >> 1] = from[n >> 1];
        to[n - 1] = from[n - 1];
    }
    return to + n;
}

static inline PyObject *lbproxy_cut_three(PyObject *data, int64_t a, int64_t a_end, int64_t b, int64_t b_end, int64_t c,
                                          int64_t c_end) {
    int64_t size = PyBytes_GET_SIZE(data);
    int64_t starts[3] = {a, b, c}, ends[3] = {a_end, b_end, c_end};
    int64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        ends[i] = ends[i] > size ? size : ends[i];
        if (starts[i] > ends[i])
            starts[i] = ends[i];
        sum += ends[i] - starts[i];
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, sum);
    if (made == NULL || sum == 0)
        return made;
    char *to = PyBytes_AS_STRING(made);
    for (int i = 0; i < 3; i++) {
        if (starts[i] < ends[i])
            to = lbproxy_put(to, PyBytes_AS_STRING(data) + starts[i], (size_t)(ends[i] - starts[i]));
    }
    return made;
}

static inline PyObject *lbproxy_join_bytes(PyObject *const *parts, int n_parts) {
    Py_ssize_t size = 0;
    for (int i = 0; i < n_parts; i++)
        size += PyBytes_GET_SIZE(parts[i]);
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    if (made == NULL || size == 0)
        return made;
    char *to = PyBytes_AS_STRING(made);
    for (int i = 0; i < n_parts; i++)
        to = lbproxy_put(to, PyBytes_AS_STRING(parts[i]), (size_t)PyBytes_GET_SIZE(parts[i]));
    return made;
}

static inline PyObject *lbproxy_join_five(PyObject *a, PyObject *b, PyObject *c, PyObject *d, PyObject *e) {
    PyObject *parts[] = {a, b, c, d, e};
    return lbproxy_join_bytes(parts, 5);
}

static inline PyObject *lbproxy_join_seven(PyObject *a, PyObject *b, PyObject *c, PyObject *d, PyObject *e, PyObject *f,
                                           PyObject *g) {
    PyObject *parts[] = {a, b, c, d, e, f, g};
    return lbproxy_join_bytes(parts, 7);
}

static inline char lbproxy_is_clean(PyObject *text) {
    if (!PyUnicode_IS_COMPACT_ASCII(text))
        return 0;
    const char *letters = (const char *)PyUnicode_1BYTE_DATA(text);
    Py_ssize_t at = 0, size = PyUnicode_GET_LENGTH(text);
#ifdef __SSE2__
    for (; at <= size - 16; at += 16) {
        __m128i found = _mm_loadu_si128((const __m128i *)(letters + at));
        __m128i odd = _mm_cmplt_epi8(found, _mm_set1_epi8(' '));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(found, _mm_set1_epi8(0x7f)));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(found, _mm_set1_epi8('"')));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(found, _mm_set1_epi8('\\')));
        if (_mm_movemask_epi8(odd))
            return 0;
    }
#endif
    for (; at < size; at++)
        if (letters[at] < ' ' || letters[at] == 0x7f || letters[at] == '"' || letters[at] == '\\')
            return 0;
    return 1;
}

static inline PyObject *lbproxy_join(PyObject *const *parts, Py_ssize_t n) {
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!PyUnicode_Check(parts[i]) || !PyUnicode_IS_COMPACT_ASCII(parts[i])) {
            PyObject *nothing = PyUnicode_New(0, 0), *list = PyList_New(n);
            PyObject *text = NULL;
            for (Py_ssize_t at = 0; list != NULL && at < n; at++)
                PyList_SET_ITEM(list, at, Py_NewRef(parts[at]));
            if (nothing != NULL && list != NULL)
                text = PyUnicode_Join(nothing, list);
            Py_XDECREF(nothing);
            Py_XDECREF(list);
            return text;
        }
        size += PyUnicode_GET_LENGTH(parts[i]);
    }
    PyObject *text = PyUnicode_New(size, 0x7f);
    if (text == NULL || size == 0)
        return text;
    char *to = (char *)PyUnicode_1BYTE_DATA(text);
    for (Py_ssize_t i = 0; i < n; i++)
        to = lbproxy_put(to, (const char *)PyUnicode_1BYTE_DATA(parts[i]), (size_t)PyUnicode_GET_LENGTH(parts[i]));
    return text;
}

static inline PyObject *lbproxy_join_three(PyObject *a, PyObject *b, PyObject *c) {
    PyObject *parts[] = {a, b, c};
    return lbproxy_join(parts, 3);
}

static inline PyObject *lbproxy_join_many(PyObject *a, PyObject *b, PyObject *c, PyObject *d, PyObject *e, PyObject *f,
                                          PyObject *g, PyObject *h, PyObject *i, PyObject *j, PyObject *k, PyObject *l,
                                          PyObject *m, PyObject *n, PyObject *o) {
    PyObject *parts[] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o};
    return lbproxy_join(parts, 15);
}

static inline PyObject *lbproxy_id_line(PyObject *octets, int64_t at) {
    static const char begin[14] = "X-Request-ID: ";
    if (at < 0 || at > (int64_t)PyBytes_GET_SIZE(octets) - 16) {
        PyErr_SetString(PyExc_IndexError, "fewer than 16 octets");
        return NULL;
    }
    PyObject *line = PyBytes_FromStringAndSize(NULL, sizeof begin + 34);
    if (line == NULL)
        return NULL;
    const unsigned char *from = (const unsigned char *)PyBytes_AS_STRING(octets) + at;
    char *to = PyBytes_AS_STRING(line);
    memcpy(to, begin, sizeof begin);
    to += sizeof begin;
#ifdef __SSE2__
    __m128i found = _mm_loadu_si128((const __m128i *)from), half = _mm_set1_epi8(15);
    __m128i high = _mm_and_si128(_mm_srli_epi16(found, 4), half), low = _mm_and_si128(found, half);
    __m128i halves[2] = {_mm_unpacklo_epi8(high, low), _mm_unpackhi_epi8(high, low)};
    for (int i = 0; i < 2; i++) {
        __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(halves[i], _mm_set1_epi8(9)), _mm_set1_epi8('a' - '0' - 10));
        _mm_storeu_si128((__m128i *)(to + 16 * i), _mm_add_epi8(_mm_add_epi8(halves[i], letter), _mm_set1_epi8('0')));
    }
    to += 32;
#else
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
#endif
    to[0] = '\r';
    to[1] = '\n';
    return line;
}

/* A line that ends with a number, and perhaps a letter; and what is behind it. */
static inline PyObject *lbproxy_number_line(const char *begin, Py_ssize_t n_begin, int64_t number, const char *unit,
                                            const char *behind, Py_ssize_t n_behind) {
    char digits[32];
    char *to = digits + sizeof digits;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    *--to = '\n';
    *--to = '\r';
    if (*unit)
        *--to = *unit;
    do
        *--to = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--to = '-';
    Py_ssize_t size = digits + sizeof digits - to;
    PyObject *line = PyBytes_FromStringAndSize(NULL, n_begin + size + n_behind);
    if (line == NULL)
        return NULL;
    memcpy(PyBytes_AS_STRING(line), begin, n_begin);
    memcpy(PyBytes_AS_STRING(line) + n_begin, to, size);
    if (n_behind)
        memcpy(PyBytes_AS_STRING(line) + n_begin + size, behind, n_behind);
    return line;
}

static inline PyObject *lbproxy_length_line(int64_t length) {
    return lbproxy_number_line("Content-Length: ", 16, length, "", NULL, 0);
}

static inline PyObject *lbproxy_timeout_line(int64_t ms, PyObject *behind) {
    return lbproxy_number_line("grpc-timeout: ", 14, ms, "m", PyBytes_AS_STRING(behind), PyBytes_GET_SIZE(behind));
}

/* A list that is empty now and then would give its memory back each time, and ask for it again. */
static inline char lbproxy_drop_last(PyObject *items) {
    Py_ssize_t n = PyList_GET_SIZE(items);
    if (n == 0) {
        PyErr_SetString(PyExc_IndexError, "pop from empty list");
        return 2;
    }
    PyObject *last = PyList_GET_ITEM(items, n - 1);
    Py_SET_SIZE((PyVarObject *)items, n - 1);
    Py_DECREF(last);
    return 1;
}

static inline char lbproxy_add_to(PyObject *cells, int64_t at, int64_t amount) {
    if ((uint64_t)at >= (uint64_t)PyList_GET_SIZE(cells)) {
        PyErr_SetString(PyExc_IndexError, "list index out of range");
        return 2;
    }
    PyObject *before = PyList_GET_ITEM(cells, at);
#if PY_VERSION_HEX < 0x030C0000
    /* A number that only this cell knows, of one digit or two, is changed where it stands, as long as it has as many
       afterwards: nobody can have seen what it was. To make another costs ten times as much. */
    if (Py_REFCNT(before) == 1 && PyLong_CheckExact(before) && (Py_SIZE(before) == 1 || Py_SIZE(before) == 2) &&
        amount >= 0 && amount < (int64_t)1 << 2 * PyLong_SHIFT) {
        digit *digits = ((PyLongObject *)before)->ob_digit;
        int is_long = Py_SIZE(before) == 2;
        uint64_t sum = digits[0] + (uint64_t)amount + (is_long ? (uint64_t)digits[1] << PyLong_SHIFT : 0);
        if (sum >> (is_long ? 2 * PyLong_SHIFT : PyLong_SHIFT) == 0) {
            digits[0] = (digit)(sum & PyLong_MASK);
            if (is_long)
                digits[1] = (digit)(sum >> PyLong_SHIFT);
            return 1;
        }
    }
#endif
    int64_t number = PyLong_AsLongLong(before);
    if (number == -1 && PyErr_Occurred())
        return 2;
    PyObject *after = PyLong_FromLongLong(number + amount);
    if (after == NULL)
        return 2;
    PyList_SET_ITEM(cells, at, after);
    Py_DECREF(before);
    return 1;
}

/* Sockets mostly have little to read at a time. So it is read into memory that is always there, and copied, which costs
   less than to ask for memory for the most that could come, and to give the rest of it back. */
#define LBPROXY_AT_ONCE (96 * 1024)
#define LBPROXY_EVENTS 256

static inline PyObject *lbproxy_read_now(int64_t fd, int64_t size) {
    static char room[LBPROXY_AT_ONCE];
    PyObject *data = NULL;
    char *to = room;
    if (size > LBPROXY_AT_ONCE) {
        data = PyBytes_FromStringAndSize(NULL, size);
        if (data == NULL)
            return NULL;
        to = PyBytes_AS_STRING(data);
    }
    ssize_t got;
    do
        got = read((int)fd, to, (size_t)size);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_XDECREF(data);
        return NULL;
    }
    if (data == NULL)
        return PyBytes_FromStringAndSize(room, got);
    if (got < size)
        _PyBytes_Resize(&data, got);
    return data;
}

static inline int64_t lbproxy_write_now(int64_t fd, PyObject *data) {
    ssize_t sent;
    do
        sent = write((int)fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -113; /* mypyc's word for: look whether there is an exception */
    }
    return sent;
}

static inline int64_t lbproxy_write_last(int64_t fd, PyObject *data) {
    ssize_t sent;
    do
        sent = send((int)fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), MSG_MORE | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -113; /* as above */
    }
    return sent;
}

/* What epoll_wait(2) says now: of each descriptor its number and its events, four octets each. */
static inline PyObject *lbproxy_events_now(PyObject *epoll, int64_t fd, int64_t most) {
    static struct epoll_event found[LBPROXY_EVENTS];
    int n;
    (void)epoll;
    do
        n = epoll_wait((int)fd, found, most < 1 ? 1 : most > LBPROXY_EVENTS ? LBPROXY_EVENTS : (int)most, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *events = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n * 8);
    if (events == NULL)
        return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(events);
    for (int i = 0; i < n; i++)
        for (int half = 0; half < 2; half++) {
            uint32_t word = half ? found[i].events : (uint32_t)found[i].data.fd;
            for (int at = 0; at < 4; at++)
                *to++ = (unsigned char)(word >> 8 * at);
        }
    return events;
}

/* Waits for these events of a descriptor that is not in the epoll. */
static inline int64_t lbproxy_watch_now(PyObject *epoll, int64_t epoll_fd, int64_t fd, int64_t events) {
    struct epoll_event one = {(uint32_t)events, {0}};
    one.data.fd = (int)fd;
    (void)epoll;
    return epoll_ctl((int)epoll_fd, EPOLL_CTL_ADD, (int)fd, &one) < 0 ? errno : 0;
}

/* Waits for other events of one that is there; for none: takes it out. */
static inline int64_t lbproxy_change_now(PyObject *epoll, int64_t epoll_fd, int64_t fd, int64_t events) {
    struct epoll_event one = {(uint32_t)events, {0}};
    one.data.fd = (int)fd;
    (void)epoll;
    return epoll_ctl((int)epoll_fd, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, (int)fd, &one) < 0 ? errno : 0;
}

/* An IPv4 address as text. Clients come again, and then one text serves all their connections: its hash is known. */
static inline PyObject *lbproxy_ipv4(uint32_t address) {
    static struct {
        uint32_t address;
        PyObject *text;
    } known[256];
    unsigned char octets[4];
    memcpy(octets, &address, 4);
    unsigned place = octets[0] ^ octets[1] * 3u ^ octets[2] * 5u ^ octets[3];
    PyObject *text = known[place & 255].text;
    if (text == NULL || known[place & 255].address != address) {
        char room[16];
        int size = 0;
        for (int at = 0; at < 4; at++) {
            unsigned octet = octets[at];
            if (octet > 99)
                room[size++] = (char)('0' + octet / 100);
            if (octet > 9)
                room[size++] = (char)('0' + octet / 10 % 10);
            room[size++] = (char)('0' + octet % 10);
            room[size++] = '.';
        }
        text = PyUnicode_FromStringAndSize(room, size - 1);
        if (text == NULL)
            return NULL;
        Py_XSETREF(known[place & 255].text, text);
        known[place & 255].address = address;
    }
    Py_INCREF(text);
    return text;
}

/* A tuple that takes both over, each of which is NULL after an error. */
static inline PyObject *lbproxy_pair(PyObject *first, PyObject *second) {
    PyObject *made = first == NULL || second == NULL ? NULL : PyTuple_New(2);
    if (made == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    PyTuple_SET_ITEM(made, 0, first);
    PyTuple_SET_ITEM(made, 1, second);
    return made;
}

/* accept(2): the descriptor, which does not block, and the peer's address as Python has it; None if nobody waits. */
static inline PyObject *lbproxy_accept_now(PyObject *listening, int64_t fd) {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } peer;
    socklen_t size = sizeof peer;
    (void)listening;
    memset(&peer, 0, sizeof peer);
    int got = accept4((int)fd, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (got < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
            Py_RETURN_NONE;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *address = NULL;
    if (size >= sizeof peer.four && peer.any.sa_family == AF_INET) {
        address = lbproxy_pair(lbproxy_ipv4(peer.four.sin_addr.s_addr), PyLong_FromLong(ntohs(peer.four.sin_port)));
    } else if (size >= sizeof peer.six && peer.any.sa_family == AF_INET6) {
        char room[INET6_ADDRSTRLEN] = "";
        inet_ntop(AF_INET6, &peer.six.sin6_addr, room, sizeof room);
        address = Py_BuildValue("siII", room, (int)ntohs(peer.six.sin6_port),
                                (unsigned)ntohl(peer.six.sin6_flowinfo), (unsigned)peer.six.sin6_scope_id);
    } else
        address = Py_NewRef(Py_None);
    PyObject *made = lbproxy_pair(PyLong_FromLong(got), address);
    if (made == NULL)
        close(got);
    return made;
}

/* Are both ends of a connection to this name the same socket? */
static inline int lbproxy_meets_itself(int fd, const struct sockaddr *name, socklen_t size) {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } own, peer;
    socklen_t room = sizeof own;
    in_port_t port = size == sizeof own.four ? ((const struct sockaddr_in *)(const void *)name)->sin_port
                                             : ((const struct sockaddr_in6 *)(const void *)name)->sin6_port;
    if (getsockname(fd, &own.any, &room) < 0 ||
        port != (own.any.sa_family == AF_INET ? own.four.sin_port : own.six.sin6_port))
        return 0;
    room = sizeof peer;
    if (getpeername(fd, &peer.any, &room) < 0 || own.any.sa_family != peer.any.sa_family)
        return 0;
    if (own.any.sa_family == AF_INET)
        return own.four.sin_port == peer.four.sin_port && own.four.sin_addr.s_addr == peer.four.sin_addr.s_addr;
    return own.six.sin6_port == peer.six.sin6_port &&
           memcmp(&own.six.sin6_addr, &peer.six.sin6_addr, sizeof own.six.sin6_addr) == 0;
}

static inline int64_t lbproxy_dial_now(int64_t family, PyObject *name) {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } to;
    socklen_t size = (socklen_t)PyBytes_GET_SIZE(name);
    if (size != (family == AF_INET ? sizeof to.four : sizeof to.six))
        return -EINVAL;
    memcpy(&to, PyBytes_AS_STRING(name), size);
    int fd = socket((int)family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int failed = connect(fd, &to.any, size);
    if (failed && errno == EINPROGRESS)
        failed = connect(fd, &to.any, size);
    if (failed) {
        if (errno == EINPROGRESS || errno == EALREADY || errno == EINTR)
            return 2 * (int64_t)fd;
        int number = errno;
        close(fd);
        return -number;
    }
    if (lbproxy_meets_itself(fd, &to.any, size)) {
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        return -ECONNREFUSED;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return 2 * (int64_t)fd + 1;
}

static inline int64_t lbproxy_shut_now(int64_t fd) {
    return shutdown((int)fd, SHUT_WR);
}

static inline int64_t lbproxy_close_now(int64_t fd) {
    return close((int)fd);
}

/* time.monotonic() */
static inline double lbproxy_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)((int64_t)now.tv_sec * 1000000000 + now.tv_nsec) / 1e9;
}

static inline char lbproxy_has_news(int64_t fd) {
    struct pollfd one = {(int)fd, POLLIN | POLLRDHUP, 0};
    int found;
    do
        found = poll(&one, 1, 0);
    while (found < 0 && errno == EINTR);
    return found != 0;
}

static inline char lbproxy_has_octets(int64_t fd) {
    char first;
    return recv((int)fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Cells are written in the order of the sources, also as seen by who finds them after the writer's death. */

static inline int64_t lbproxy_load_cell(int64_t address, int64_t at) {
    return __atomic_load_n((volatile int64_t *)(intptr_t)address + at, __ATOMIC_ACQUIRE);
}

static inline int64_t lbproxy_store_cell(int64_t address, int64_t at, int64_t value) {
    __atomic_store_n((volatile int64_t *)(intptr_t)address + at, value, __ATOMIC_RELEASE);
    return 0;
}

static inline int64_t lbproxy_try_lock(int64_t address) {
    return pthread_mutex_trylock((pthread_mutex_t *)(intptr_t)address);
}

static inline int64_t lbproxy_unlock(int64_t address) {
    return pthread_mutex_unlock((pthread_mutex_t *)(intptr_t)address);
}

static inline char *lbproxy_put_frame(char *to, int64_t size, int64_t kind, int64_t flags, int64_t stream_id) {
    *to++ = (char)(size >> 16);
    *to++ = (char)(size >> 8);
    *to++ = (char)size;
    *to++ = (char)kind;
    *to++ = (char)flags;
    *to++ = (char)(stream_id >> 24);
    *to++ = (char)(stream_id >> 16);
    *to++ = (char)(stream_id >> 8);
    *to++ = (char)stream_id;
    return to;
}

static inline PyObject *lbproxy_frame(int64_t kind, int64_t flags, int64_t stream_id, PyObject *payload) {
    Py_ssize_t size = PyBytes_GET_SIZE(payload);
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size + 9);
    if (whole != NULL)
        memcpy(lbproxy_put_frame(PyBytes_AS_STRING(whole), size, kind, flags, stream_id), PyBytes_AS_STRING(payload), size);
    return whole;
}

static inline PyObject *lbproxy_frame_begin(int64_t size, int64_t kind, int64_t flags, int64_t stream_id) {
    PyObject *begin = PyBytes_FromStringAndSize(NULL, 9);
    if (begin != NULL)
        lbproxy_put_frame(PyBytes_AS_STRING(begin), size, kind, flags, stream_id);
    return begin;
}

static inline PyObject *lbproxy_join_four(PyObject *first, PyObject *second, PyObject *third, PyObject *fourth) {
    PyObject *parts[4] = {first, second, third, fourth};
    Py_ssize_t size = 0;
    for (int i = 0; i < 4; i++)
        size += PyBytes_GET_SIZE(parts[i]);
    for (int i = 0; i < 4; i++)
        if (PyBytes_GET_SIZE(parts[i]) == size) {
            Py_INCREF(parts[i]);
            return parts[i];
        }
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size);
    if (whole == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(whole);
    for (int i = 0; i < 4; i++) {
        memcpy(to, PyBytes_AS_STRING(parts[i]), PyBytes_GET_SIZE(parts[i]));
        to += PyBytes_GET_SIZE(parts[i]);
    }
    return whole;
}

/* Four bits bring one symbol at most, so that there are two at most for each octet. */
static inline PyObject *lbproxy_huffman_text(PyObject *data, int64_t start, int64_t end, PyObject *tables) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(data);
    const unsigned char *follows = (const unsigned char *)PyBytes_AS_STRING(tables);
    const unsigned char *happens = follows + 4096, *symbols = follows + 8192, *last = follows + 12288;
    int64_t size = PyBytes_GET_SIZE(data);
    unsigned char small[512], *made = small, *to;
    unsigned state = 0, wrong = 0;
    if (PyBytes_GET_SIZE(tables) < 12288 + 256 || start < 0) {
        PyErr_SetString(PyExc_ValueError, "not the tables of a code, or not a place");
        return NULL;
    }
    end = end > size ? size : end;
    size = start < end ? end - start : 0;
    if (size > (int64_t)sizeof small / 2 && (made = PyMem_Malloc((size_t)size * 2)) == NULL)
        return PyErr_NoMemory();
    to = made;
    for (int64_t at = start; at < start + size; at++) {
        unsigned place = state << 4 | octets[at] >> 4;
        *to = symbols[place];
        to += happens[place] & 1;
        wrong |= happens[place];
        place = (unsigned)follows[place] << 4 | (octets[at] & 15);
        *to = symbols[place];
        to += happens[place] & 1;
        wrong |= happens[place];
        state = follows[place];
    }
    PyObject *text = NULL;
    if (wrong & ~1u)
        PyErr_SetString(PyExc_ValueError, "EOS stands in a Huffman code");
    else if (!last[state])
        PyErr_SetString(PyExc_ValueError, "a Huffman code ends with padding that is no prefix of EOS");
    else
        text = PyBytes_FromStringAndSize((const char *)made, to - made);
    if (made != small)
        PyMem_Free(made);
    return text;
}

/* Both ends are those of a slice, within what there is. */
static inline PyObject *lbproxy_spliced(PyObject *first, PyObject *octets, int64_t start, int64_t skip_from,
                                        int64_t skip_to, PyObject *second, PyObject *third, PyObject *fourth) {
    int64_t size = PyBytes_GET_SIZE(octets);
    const char *from = PyBytes_AS_STRING(octets);
    skip_from = skip_from > size ? size : skip_from;
    int64_t n_before = start < skip_from ? skip_from - start : 0;
    skip_to = skip_to > start ? skip_to : start;
    int64_t n_behind = skip_to < size ? size - skip_to : 0;
    PyObject *whole =
        PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(first) + n_before + n_behind + PyBytes_GET_SIZE(second) +
                                            PyBytes_GET_SIZE(third) + PyBytes_GET_SIZE(fourth));
    if (whole == NULL || PyBytes_GET_SIZE(whole) == 0)
        return whole;
    char *to = PyBytes_AS_STRING(whole);
    to = lbproxy_put(to, PyBytes_AS_STRING(first), (size_t)PyBytes_GET_SIZE(first));
    if (n_before)
        to = lbproxy_put(to, from + start, (size_t)n_before);
    if (n_behind)
        to = lbproxy_put(to, from + skip_to, (size_t)n_behind);
    to = lbproxy_put(to, PyBytes_AS_STRING(second), (size_t)PyBytes_GET_SIZE(second));
    to = lbproxy_put(to, PyBytes_AS_STRING(third), (size_t)PyBytes_GET_SIZE(third));
    lbproxy_put(to, PyBytes_AS_STRING(fourth), (size_t)PyBytes_GET_SIZE(fourth));
    return whole;
}

/* Between fields stands an octet that no value has, so that to look for the end of one is not to look at all others. */
static inline int64_t lbproxy_literal_at(PyObject *block, int64_t at) {
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(block);
    int64_t size = PyBytes_GET_SIZE(block);
    if (at < 0 || at > size - 3 || octets[at] != 0)
        return -1;
    int64_t n_name = octets[at + 1];
    int64_t start = at + 2 + n_name; /* where the value's size stands */
    if (n_name < 1 || n_name > 64 || start >= size)
        return -1;
    int64_t n_value = octets[start++];
    if (n_value >= 127) {
        if (n_value > 127 || start >= size || octets[start] > 127)
            return -1;
        n_value += octets[start++];
    }
    if (n_value > size - start || (n_value && lbproxy_value_end(block, start) < start + n_value))
        return -1;
    if (n_value) {
        unsigned char first = octets[start], last = octets[start + n_value - 1];
        if (first == ' ' || first == '\t' || last == ' ' || last == '\t')
            return -1;
    }
    return start << 16 | n_value << 8 | n_name;
}

/* At most six octets: no object has more than 2^40. */
static inline char *lbproxy_put_size(char *to, Py_ssize_t size) {
    if (size < 127) {
        *to++ = (char)size;
        return to;
    }
    *to++ = 127;
    for (size -= 127; size >= 128; size >>= 7)
        *to++ = (char)(128 | (size & 127));
    *to++ = (char)size;
    return to;
}

static inline PyObject *lbproxy_hpack_literal(PyObject *begin, PyObject *value) {
    char digits[16];
    Py_ssize_t n_begin = PyBytes_GET_SIZE(begin), n_value = PyBytes_GET_SIZE(value);
    Py_ssize_t n_size = lbproxy_put_size(digits, n_value) - digits;
    PyObject *whole = PyBytes_FromStringAndSize(NULL, n_begin + n_size + n_value);
    if (whole == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(whole);
    memcpy(to, PyBytes_AS_STRING(begin), n_begin);
    memcpy(to + n_begin, digits, n_size);
    memcpy(to + n_begin + n_size, PyBytes_AS_STRING(value), n_value);
    return whole;
}

/* usual: as most write it. The rest is looked at letter by letter. */
static inline int lbproxy_is_name(const char *found, const char *usual, const char *name, size_t size) {
    if (memcmp(found, usual, size) == 0 || memcmp(found, name, size) == 0)
        return 1;
    for (size_t i = 0; i < size; i++) {
        char letter = found[i];
        if ((letter >= 'A' && letter <= 'Z' ? letter | 0x20 : letter) != name[i])
            return 0;
    }
    return 1;
}

/* A line has as many octets as what is made of it, but for those of a long value's size: four more at most, of which there
   are none with fewer than 255 octets. */
static inline PyObject *lbproxy_hpack_own(PyObject *lines) {
    const char *at = PyBytes_AS_STRING(lines), *end = at + PyBytes_GET_SIZE(lines);
    char small[512];
    char *made = small, *to;
    size_t room = (size_t)(end - at) + (size_t)(end - at) / 32 + 16;
    if (room > sizeof small && (made = PyMem_Malloc(room)) == NULL)
        return PyErr_NoMemory();
    to = made;
    while (at < end) {
        const char *begin, *value;
        size_t n_begin;
        if (end - at > 16 && lbproxy_is_name(at, "Content-Length: ", "content-length: ", 16)) {
            begin = "\x0f\x0d";
            n_begin = 2;
            value = at + 16;
        } else if (end - at > 14 && lbproxy_is_name(at, "X-Request-ID: ", "x-request-id: ", 14)) {
            begin = "\0\x0cx-request-id";
            n_begin = 14;
            value = at + 14;
        } else if (end - at > 14 && lbproxy_is_name(at, "Grpc-Timeout: ", "grpc-timeout: ", 14)) {
            begin = "\0\x0cgrpc-timeout";
            n_begin = 14;
            value = at + 14;
        } else
            break;
        const char *stop = memchr(value, '\r', end - value);
        if (stop == NULL || stop + 1 >= end || stop[1] != '\n')
            break;
        memcpy(to, begin, n_begin);
        to += n_begin;
        to = lbproxy_put_size(to, stop - value);
        memcpy(to, value, stop - value);
        to += stop - value;
        at = stop + 2;
    }
    PyObject *whole = PyBytes_FromStringAndSize(made, at == end ? to - made : 0);
    if (made != small)
        PyMem_Free(made);
    return whole;
}
