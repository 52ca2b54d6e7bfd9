#include <gtest/gtest.h>

#include <cowshed/cow/pattern.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kSamples = 100;

// A site of which nothing speaks for anything.
StoreSite plain_site() {
  StoreSite site;
  site.store.kind = StoreKind::store;
  site.store.width = 8;
  site.store.displacement = 0;
  site.store.text = "mov qword ptr [rdi], rax";
  site.module = "/usr/bin/program";
  site.samples = kSamples;
  return site;
}

StoreSite reference_count() {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::add;
  site.store.amount = 1;
  site.store.text = "add qword ptr [rdx], 1";
  site.aligned = kSamples;
  return site;
}

std::size_t releases(const std::string& module, CounterField field) {
  return module == "/usr/bin/program" && field == CounterField{0, 8} ? 50 : 0;
}

std::string name_of(const StoreSite& site) {
  const auto patterns = find_patterns({site}, releases);
  EXPECT_EQ(patterns.size(), 1U);
  EXPECT_EQ(patterns.at(0).samples, kSamples);
  EXPECT_EQ(patterns.at(0).share, 1.0);
  return patterns.at(0).pattern;
}

TEST(Pattern, OfNoSamplesThereIsNone) { EXPECT_TRUE(find_patterns({}, releases).empty()); }

TEST(Pattern, APlainStoreIsUnknown) { EXPECT_EQ(name_of(plain_site()), "unknown"); }

TEST(Pattern, PlusAndMinusOneAtAlignedObjectsIsAReferenceCountWhereReferencesAreReleased) {
  StoreSite site = reference_count();
  EXPECT_EQ(name_of(site), "reference count");
  StoreSite down = site;
  down.store.amount = -1;
  EXPECT_EQ(find_patterns({site, down}, releases).at(0).pattern, "reference count");
  EXPECT_EQ(find_patterns({site, down}, releases).at(0).samples, 2 * kSamples);
  EXPECT_EQ(name_of(down), "unknown") << "a stock of something";
  down.store.locked = true;
  EXPECT_EQ(name_of(down), "reference count") << "of many threads";
}

TEST(Pattern, OfAProcessWithFewSamplesItIsNoReferenceCount) {
  StoreSite one = reference_count();
  one.samples = one.aligned = 1;
  EXPECT_EQ(find_patterns({one, one, one}, releases).at(0).pattern, "unknown");
  EXPECT_EQ(find_patterns({one, one, one}, releases).at(0).samples, 3U);
  EXPECT_EQ(find_patterns({one, one, one, one}, releases).at(0).pattern, "reference count");
}

TEST(Pattern, CountsOfSharedPointersAreToldByName) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::add;
  site.store.width = 4;
  site.store.displacement = 8;
  site.store.amount = 1;
  site.store.locked = true;
  site.store.text = "lock add dword ptr [rax + 8], 1";
  EXPECT_EQ(name_of(site), "unknown") << "requests that were served, say";
  site.functions = {"__gnu_cxx::__atomic_add(int volatile*, int)",
                    "std::_Sp_counted_base<(__gnu_cxx::_Lock_policy)2>::_M_add_ref_copy()"};
  EXPECT_EQ(name_of(site), "reference count");
  EXPECT_EQ(find_patterns({site}, releases).at(0).evidence,
            "lock add dword ptr [rax + 8], 1 in __gnu_cxx::__atomic_add(int volatile*, int) "
            "(program): 100 of 100 samples; +1 in 100, -1 in 0");
  StoreSite one = site;
  one.samples = 1;
  EXPECT_EQ(find_patterns({one}, releases).at(0).pattern, "reference count");
  site.functions.erase(site.functions.begin());
  site.store.amount = 8;
  EXPECT_EQ(name_of(site), "unknown");
}

TEST(Pattern, CountsOfSharedPointersThatAreStoredOrExchanged) {
  constexpr const char* kBase = "std::_Sp_counted_base<(__gnu_cxx::_Lock_policy)2>";
  StoreSite stored = plain_site();
  stored.store.width = 4;
  stored.store.displacement = 8;
  stored.store.text = "mov dword ptr [rdi + 8], edx";
  stored.functions = {"__gnu_cxx::__exchange_and_add_single(int*, int)",
                      "__gnu_cxx::__exchange_and_add_dispatch(int*, int)",
                      std::string(kBase) + "::_M_release()"};
  EXPECT_EQ(name_of(stored), "reference count");
  EXPECT_EQ(find_patterns({stored}, releases).at(0).evidence,
            "mov dword ptr [rdi + 8], edx in __gnu_cxx::__exchange_and_add_single(int*, int) "
            "(program): 100 of 100 samples; +1 in 0, -1 in 0, by the function's name in 100");
  StoreSite last = stored;
  last.store.width = 8;
  last.functions = {std::string(kBase) + "::_M_release()"};
  EXPECT_EQ(name_of(last), "reference count") << "both counts";
  last.store.displacement = 24;
  EXPECT_EQ(name_of(last), "unknown") << "of the object that it destroys";
  StoreSite exchanged = last;
  exchanged.store.kind = StoreKind::exchange;
  exchanged.store.width = 4;
  exchanged.store.displacement = 0;
  exchanged.functions = {std::string(kBase) + "::_M_add_ref_lock_nothrow()"};
  EXPECT_EQ(name_of(exchanged), "reference count") << "weak_ptr::lock()";
}

TEST(Pattern, PythonsCountsThatMayBeImmortal) {
  StoreSite site = plain_site();
  site.store.width = 4;
  site.store.text = "mov dword ptr [rdx], eax";
  site.functions = {"list_item", "Py_INCREF"};
  EXPECT_EQ(name_of(site), "unknown") << "only innermost";
  site.functions = {"Py_INCREF", "list_item"};
  EXPECT_EQ(name_of(site), "reference count");
  EXPECT_EQ(find_patterns({site}, releases).at(0).evidence,
            "mov dword ptr [rdx], eax in Py_INCREF (program): 100 of 100 samples; "
            "+1 in 0, -1 in 0, by the function's name in 100");
  site.store.width = 1;
  EXPECT_EQ(name_of(site), "unknown");
}

TEST(Pattern, WhatSharedPointersDestroyCountsForItself) {
  constexpr const char* kBase = "std::_Sp_counted_base<(__gnu_cxx::_Lock_policy)2>";
  StoreSite site = plain_site();
  site.store.kind = StoreKind::add;
  site.store.amount = -1;
  site.functions = {"Session::~Session()", "std::_Sp_counted_ptr_inplace<Session>::_M_dispose()",
                    std::string(kBase) + "::_M_release()"};
  EXPECT_EQ(name_of(site), "unknown") << "how many sessions there are";
  StoreSite made = plain_site();
  made.store.displacement = 8;
  made.functions = {std::string(kBase) + "::_Sp_counted_base()"};
  EXPECT_EQ(name_of(made), "unknown") << "a new object";
  StoreSite own = plain_site();
  own.functions = {"__gnu_cxx::__exchange_and_add_single(int*, int)", "serve_request()"};
  EXPECT_EQ(name_of(own), "unknown");
}

TEST(Pattern, AReleaseSpeaksForItself) {
  StoreSite site = reference_count();
  site.store.displacement = 0x80;
  site.store.amount = 1;
  EXPECT_EQ(name_of(site), "unknown");
  site.store.releases = true;
  EXPECT_EQ(name_of(site), "reference count");
}

// Each of these is a plain counter, however well it lies.
TEST(Pattern, APlainCounterIsNotAReferenceCount) {
  StoreSite other_field = reference_count();
  other_field.store.displacement = 24;
  EXPECT_EQ(name_of(other_field), "unknown") << "that nothing releases";
  StoreSite other_width = reference_count();
  other_width.store.width = 4;
  EXPECT_EQ(name_of(other_width), "unknown");
  StoreSite other_module = reference_count();
  other_module.module = "/usr/bin/other";
  EXPECT_EQ(name_of(other_module), "unknown");
  StoreSite nowhere = reference_count();
  nowhere.module.clear();
  EXPECT_EQ(name_of(nowhere), "unknown");
  StoreSite in_array = reference_count();
  in_array.store.displacement.reset();
  EXPECT_EQ(name_of(in_array), "unknown") << "an element by its index";
  StoreSite running = reference_count();
  running.store.advances = true;
  EXPECT_EQ(name_of(running), "unknown") << "a walk through an array";
  StoreSite unaligned = reference_count();
  unaligned.aligned = kSamples / 2;
  EXPECT_EQ(name_of(unaligned), "unknown");
  StoreSite by_two = reference_count();
  by_two.store.amount = 2;
  EXPECT_EQ(name_of(by_two), "unknown");
  StoreSite by_what = reference_count();
  by_what.store.amount.reset();
  EXPECT_EQ(name_of(by_what), "unknown");
}

TEST(Pattern, ACollectorIsToldByNameOrByTheWalkOfAnInterpretersList) {
  for (const char* name : {"gc_mark", "PyGC_Collect", "_PyObject_GC_Del", "rb_gc_mark", "GC_malloc",
                           "zend_gc_collect_cycles"}) {
    StoreSite site = plain_site();
    site.functions = {"helper", name};
    EXPECT_EQ(name_of(site), "garbage collector") << name;
  }
  for (const char* name : {"_PyLong_GCD", "getgcd", "ngctx", "agc", "collect", "gc_content"}) {
    StoreSite site = plain_site();
    site.functions = {name};
    EXPECT_EQ(name_of(site), "unknown") << name;
  }
  StoreSite outer = plain_site();
  outer.functions = {"a", "b", "c", "gc_mark"};
  EXPECT_EQ(name_of(outer), "unknown") << "too far out";
  StoreSite walk = plain_site();
  walk.store.walks_list = true;
  EXPECT_EQ(name_of(walk), "unknown") << "any program has lists";
  walk.module = "/usr/bin/python3.11";
  EXPECT_EQ(name_of(walk), "garbage collector");
  walk.store.walks_list = false;
  EXPECT_EQ(name_of(walk), "unknown");
}

TEST(Pattern, AnAllocatorIsToldByName) {
  for (const char* name : {"malloc", "free", "_int_free", "operator delete(void*)", "PyObject_Free",
                           "AllocSetAlloc", "je_free"}) {
    StoreSite site = plain_site();
    site.functions = {name};
    EXPECT_EQ(name_of(site), "allocator free list") << name;
  }
  StoreSite caller = plain_site();
  caller.functions = {"fill_buffer", "malloc"};
  EXPECT_EQ(name_of(caller), "unknown") << "only innermost";
  StoreSite own = plain_site();
  own.functions = {"free_users_table"};
  EXPECT_EQ(name_of(own), "unknown");
}

TEST(Pattern, LocksAndFlags) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::exchange;
  EXPECT_EQ(name_of(site), "unknown") << "8 bytes: a sum, a pointer";
  site.store.width = 4;
  EXPECT_EQ(name_of(site), "lock or flag word");
  site.store.kind = StoreKind::modify;
  EXPECT_EQ(name_of(site), "unknown") << "xor with a value";
  site.store.changes_bit = true;
  EXPECT_EQ(name_of(site), "lock or flag word");
  site.store.changes_bit = false;
  site.store.locked = true;
  EXPECT_EQ(name_of(site), "lock or flag word");
  StoreSite owner = plain_site();
  owner.functions = {"pthread_mutex_lock"};
  EXPECT_EQ(name_of(owner), "lock or flag word");
}

TEST(Pattern, BulkStoresComeRunning) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::fill;
  site.store.width = 32;
  EXPECT_EQ(name_of(site), "unknown") << "an object of some words is cleared";
  site.at_page_begin = kSamples;
  EXPECT_EQ(name_of(site), "bulk fill");
  site.store.kind = StoreKind::copy;
  EXPECT_EQ(name_of(site), "unknown") << "results of arithmetic";
  site.module = "/usr/lib/x86_64-linux-gnu/libc.so.6";
  EXPECT_EQ(name_of(site), "bulk copy");
  site.module = "/usr/bin/program";
  site.store.kind = StoreKind::vector;
  EXPECT_EQ(name_of(site), "unknown");
  site.functions = {"__memset_avx2_unaligned"};
  EXPECT_EQ(name_of(site), "bulk fill");
  site.functions = {"__memmove_avx_unaligned_erms"};
  EXPECT_EQ(name_of(site), "bulk copy");
  site.at_page_begin = 0;
  EXPECT_EQ(name_of(site), "unknown");
  site.near_page_begin = kSamples;
  EXPECT_EQ(name_of(site), "bulk copy") << "of blocks";
  StoreSite few = site;
  few.samples = few.near_page_begin = 3;
  EXPECT_EQ(find_patterns({few}, releases).at(0).pattern, "unknown") << "by chance";
  site.near_page_begin = 0;
  site.at_page_end = kSamples;
  EXPECT_EQ(name_of(site), "bulk copy") << "from the end";
  site.functions = {"__memset_avx2_unaligned"};
  EXPECT_EQ(name_of(site), "unknown") << "has no reason to come from there";
  site.functions = {"__memmove_avx_unaligned_erms"};
  site.at_page_end = 0;
  site.store.streams = true;
  EXPECT_EQ(name_of(site), "bulk copy") << "of megabytes";
  site.functions = {"transform_pixels"};
  EXPECT_EQ(name_of(site), "unknown");
  StoreSite repeated = plain_site();
  repeated.store.kind = StoreKind::fill;
  repeated.store.remaining = 64;
  EXPECT_EQ(name_of(repeated), "unknown");
  repeated.store.remaining = 4096;
  EXPECT_EQ(name_of(repeated), "bulk fill");
}

TEST(Pattern, TheDynamicLinkerRelocatesWordsOfFiles) {
  StoreSite site = plain_site();
  site.module = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
  EXPECT_EQ(name_of(site), "unknown") << "its own heap";
  site.in_file = kSamples;
  EXPECT_EQ(name_of(site), "relocation");
  site.store.kind = StoreKind::add;
  EXPECT_EQ(name_of(site), "relocation");
  site.store.width = 4;
  EXPECT_EQ(name_of(site), "unknown");
  StoreSite program = plain_site();
  program.in_file = kSamples;
  EXPECT_EQ(name_of(program), "unknown");
}

TEST(Pattern, TheStackAndTheKernel) {
  StoreSite pushes = plain_site();
  pushes.store.kind = StoreKind::push;
  EXPECT_EQ(name_of(pushes), "stack");
  StoreSite local = plain_site();
  local.near_stack_pointer = kSamples;
  EXPECT_EQ(name_of(local), "stack");
  StoreSite kernel = plain_site();
  kernel.store = {};
  kernel.system_call = "read";
  EXPECT_EQ(name_of(kernel), "system call");
}

TEST(Pattern, AnInstructionThatCouldNotBeReadIsUnknownWhateverItsFunction) {
  StoreSite site = plain_site();
  site.store = {};
  site.functions = {"free"};
  EXPECT_EQ(name_of(site), "unknown");
}

TEST(Pattern, SharesAddUpAndTheEvidenceNamesTheTopSite) {
  StoreSite up = reference_count();
  up.samples = up.aligned = 60;
  StoreSite down = reference_count();
  down.store.amount = -1;
  down.store.text = "sub qword ptr [rax], 1";
  down.samples = down.aligned = 20;
  StoreSite other = plain_site();
  other.samples = 20;
  const auto patterns = find_patterns({other, down, up}, releases);
  ASSERT_EQ(patterns.size(), 2U);
  EXPECT_EQ(patterns[0].pattern, "reference count");
  EXPECT_EQ(patterns[0].samples, 80U);
  EXPECT_DOUBLE_EQ(patterns[0].share, 0.8);
  EXPECT_EQ(patterns[0].evidence,
            "add qword ptr [rdx], 1 (program) and 1 more: 80 of 100 samples; +1 in 60, -1 in 20, "
            "at 16-byte aligned objects; 50 places of program release");
  EXPECT_EQ(patterns[1].pattern, "unknown");
  EXPECT_DOUBLE_EQ(patterns[1].share, 0.2);
}

}  // namespace
}  // namespace cowshed::cow
