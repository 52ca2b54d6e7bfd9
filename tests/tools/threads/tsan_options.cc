// httplib is a library of Debian's, without ThreadSanitizer: what it reads of its own by memcmp and
// has synchronised by itself would be taken for a race.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }
