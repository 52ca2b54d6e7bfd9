// Stands in for a sanitizer's runtime.
extern "C" void __asan_init() {}  // NOLINT(bugprone-reserved-identifier)
