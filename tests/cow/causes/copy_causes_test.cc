#include <cowshed/cow/causes/copy_causes.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kSamples = 100;

std::vector<CopyPattern> find_patterns(const std::vector<StoreSite>& sites,
                                       const ReleaseSites& release_sites) {
  return find_causes(sites, release_sites).patterns;
}

// A site of which nothing speaks for anything.
StoreSite plain_site() {
  StoreSite site;
  site.store.kind = StoreKind::store;
  site.store.width = 8;
  site.store.displacement = 0;
  site.store.text = "mov qword ptr [rdi], rax";
  site.module = "/usr/bin/program";
  site.samples = site.copies = kSamples;
  return site;
}

StoreSite site_of(StoreKind kind, unsigned width, std::optional<std::int64_t> displacement,
                  const std::string& text = "", std::vector<std::string> functions = {}) {
  StoreSite site = plain_site();
  site.store.kind = kind;
  site.store.width = width;
  site.store.displacement = displacement;
  site.store.text = text;
  site.functions = std::move(functions);
  return site;
}

StoreSite reference_count() {
  StoreSite site = site_of(StoreKind::add, 8, 0, "add qword ptr [rdx], 1");
  site.store.amount = 1;
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

// A plain site's pattern after some changes to it.
using Change = std::function<void(StoreSite&)>;
std::string name_after(const Change& change, StoreSite site = plain_site()) {
  change(site);
  return name_of(site);
}

// Of a function, and its callers.
std::string name_in(std::vector<std::string> functions) {
  return name_after([&](StoreSite& site) { site.functions = std::move(functions); });
}

std::string evidence_of(const StoreSite& site) {
  return find_patterns({site}, releases).at(0).evidence;
}

constexpr const char* kBase = "std::_Sp_counted_base<(__gnu_cxx::_Lock_policy)2>";
constexpr const char* kAdd = "__gnu_cxx::__atomic_add(int volatile*, int)";
constexpr const char* kExchange = "__gnu_cxx::__exchange_and_add_single(int*, int)";

TEST(Pattern, OfNoSamplesThereIsNone) { EXPECT_TRUE(find_patterns({}, releases).empty()); }

TEST(Pattern, APlainStoreOfTheProgramIsItsOwn) { EXPECT_EQ(name_of(plain_site()), "own writes"); }

TEST(Pattern, OwnWritesNameTheLibraryThatMakesThem) {
  const auto library_of = [](const std::string& module, std::uint64_t copies) {
    StoreSite site = plain_site();
    site.module = module;
    site.samples = site.copies = copies;
    return find_patterns({site, plain_site()}, releases).at(0).library;
  };
  const std::string etree = "/usr/lib/python3/dist-packages/lxml/etree.cpython-311-x.so";
  EXPECT_EQ(library_of(etree, kSamples * 9), "etree.cpython-311-x.so");
  EXPECT_EQ(library_of(etree, kSamples), "") << "and the program";
  EXPECT_EQ(library_of("/usr/bin/other", kSamples * 9), "");
}

TEST(Pattern, PlusAndMinusOneAtAlignedObjectsIsAReferenceCountWhereReferencesAreReleased) {
  const StoreSite site = reference_count();
  EXPECT_EQ(name_of(site), "reference count");
  StoreSite down = site;
  down.store.amount = -1;
  const auto both = find_patterns({site, down}, releases);
  EXPECT_EQ(both.at(0).pattern, "reference count");
  EXPECT_EQ(both.at(0).samples, 2 * kSamples);
  EXPECT_EQ(name_of(down), "own writes") << "a stock of something";
  down.store.locked = true;
  EXPECT_EQ(name_of(down), "reference count") << "of many threads";
}

TEST(Pattern, OfAProcessWithFewSamplesItIsNoReferenceCount) {
  StoreSite one = reference_count();
  one.samples = one.copies = one.aligned = 1;
  const auto three = find_patterns({one, one, one}, releases);
  EXPECT_EQ(three.at(0).pattern, "own writes");
  EXPECT_EQ(three.at(0).samples, 3U);
  EXPECT_EQ(find_patterns({one, one, one, one}, releases).at(0).pattern, "reference count");
}

TEST(Pattern, CountsOfSharedPointersAreToldByName) {
  StoreSite site = site_of(StoreKind::add, 4, 8, "lock add dword ptr [rax + 8], 1");
  site.store.amount = 1;
  site.store.locked = true;
  EXPECT_EQ(name_of(site), "own writes") << "requests that were served, say";
  site.functions = {kAdd, std::string(kBase) + "::_M_add_ref_copy()"};
  EXPECT_EQ(name_of(site), "reference count");
  EXPECT_EQ(evidence_of(site), "lock add dword ptr [rax + 8], 1 in " + site.functions[0] +
                                   " (program): 100 of 100 samples; +1 in 100, -1 in 0");
  StoreSite one = site;
  one.samples = one.copies = 1;
  EXPECT_EQ(find_patterns({one}, releases).at(0).pattern, "reference count");
  site.functions.erase(site.functions.begin());
  site.store.amount = 8;
  EXPECT_EQ(name_of(site), "own writes");
}

TEST(Pattern, CountsOfSharedPointersThatAreStoredOrExchanged) {
  const StoreSite stored = site_of(StoreKind::store, 4, 8, "mov dword ptr [rdi + 8], edx",
                                   {kExchange, "__gnu_cxx::__exchange_and_add_dispatch(int*, int)",
                                    std::string(kBase) + "::_M_release()"});
  EXPECT_EQ(name_of(stored), "reference count");
  EXPECT_EQ(evidence_of(stored),
            "mov dword ptr [rdi + 8], edx in " + stored.functions[0] +
                " (program): 100 of 100 samples; +1 in 0, -1 in 0, by the function's name in 100");
  const std::string release = std::string(kBase) + "::_M_release()";
  const std::string lock = std::string(kBase) + "::_M_add_ref_lock_nothrow()";
  EXPECT_EQ(name_of(site_of(StoreKind::store, 8, 8, "", {release})), "reference count")
      << "both counts";
  EXPECT_EQ(name_of(site_of(StoreKind::store, 8, 24, "", {release})), "own writes")
      << "of the object that it destroys";
  EXPECT_EQ(name_of(site_of(StoreKind::exchange, 4, 0, "", {lock})), "reference count")
      << "weak_ptr::lock()";
}

TEST(Pattern, PythonsCountsThatMayBeImmortal) {
  StoreSite site =
      site_of(StoreKind::store, 4, 0, "mov dword ptr [rdx], eax", {"list_item", "Py_INCREF"});
  EXPECT_EQ(name_of(site), "own writes") << "only innermost";
  site.functions = {"Py_INCREF", "list_item"};
  EXPECT_EQ(name_of(site), "reference count");
  EXPECT_EQ(evidence_of(site),
            "mov dword ptr [rdx], eax in Py_INCREF (program): 100 of 100 "
            "samples; +1 in 0, -1 in 0, by the function's name in 100");
  site.store.width = 1;
  EXPECT_EQ(name_of(site), "own writes");
}

TEST(Pattern, WhatSharedPointersDestroyCountsForItself) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::add;
  site.store.amount = -1;
  site.functions = {"Session::~Session()", "std::_Sp_counted_ptr_inplace<Session>::_M_dispose()",
                    std::string(kBase) + "::_M_release()"};
  EXPECT_EQ(name_of(site), "own writes") << "how many sessions there are";
  EXPECT_EQ(
      name_of(site_of(StoreKind::store, 8, 8, "", {std::string(kBase) + "::_Sp_counted_base()"})),
      "own writes")
      << "a new object";
  EXPECT_EQ(name_in({kExchange, "serve_request()"}), "own writes");
}

TEST(Pattern, AReleaseSpeaksForItself) {
  StoreSite site = reference_count();
  site.store.displacement = 0x80;
  EXPECT_EQ(name_of(site), "own writes");
  site.store.releases = true;
  EXPECT_EQ(name_of(site), "reference count");
}

// However well it lies.
TEST(Pattern, APlainCounterIsNotAReferenceCount) {
  const std::pair<const char*, Change> cases[] = {
      {"a field that nothing releases", [](StoreSite& site) { site.store.displacement = 24; }},
      {"another width", [](StoreSite& site) { site.store.width = 4; }},
      {"another module", [](StoreSite& site) { site.module = "/usr/bin/other"; }},
      {"in no module", [](StoreSite& site) { site.module.clear(); }},
      {"an element by its index", [](StoreSite& site) { site.store.displacement.reset(); }},
      {"a walk through an array", [](StoreSite& site) { site.store.advances = true; }},
      {"unaligned", [](StoreSite& site) { site.aligned = kSamples / 2; }},
      {"by two", [](StoreSite& site) { site.store.amount = 2; }},
      {"by what is not known", [](StoreSite& site) { site.store.amount.reset(); }},
  };
  for (const auto& [what, change] : cases)
    EXPECT_THAT(name_after(change, reference_count()), ::testing::AnyOf("own writes", "unknown"))
        << what;
}

TEST(Pattern, ACollectionOfOcamlRubyOrRIsToldByWhatBeganIt) {
  const auto depth_7_of = [](const char* name) {
    return name_in({"mark_stack_push", "f", "f", "f", "f", "f", "f", name, "main"});
  };
  for (const char* name : {"caml_major_collection_slice", "caml_empty_minor_heap", "gc_marks_rest",
                           "rb_gc_start", "R_gc_internal"}) {
    EXPECT_EQ(depth_7_of(name), "garbage collector") << name;
  }
  for (const char* name : {"caml_main", "rb_vm_exec", "R_ReplDLLdo1"})
    EXPECT_EQ(depth_7_of(name), "own writes") << name;
}

TEST(Pattern, ACollectorIsToldByNameOrByTheWalkOfAnInterpretersList) {
  for (const char* name : {"gc_mark", "PyGC_Collect", "_PyObject_GC_Del", "rb_gc_mark", "GC_malloc",
                           "zend_gc_collect_cycles"}) {
    EXPECT_EQ(name_in({"helper", name}), "garbage collector") << name;
  }
  for (const char* name :
       {"_PyLong_GCD", "getgcd", "ngctx", "agc", "collect", "gc_content", "GC_content"})
    EXPECT_EQ(name_in({name}), "own writes") << name;
  EXPECT_EQ(name_in({"a", "b", "c", "gc_mark"}), "own writes") << "too far out";
  StoreSite walk = plain_site();
  walk.store.walks_list = true;
  EXPECT_EQ(name_of(walk), "own writes") << "any program has lists";
  walk.interpreter = Language::python;
  EXPECT_EQ(name_of(walk), "unknown") << "a list's item is released so";
  walk.interpreter = Language::ruby;
  EXPECT_EQ(name_of(walk), "garbage collector");
  walk.store.walks_list = false;
  EXPECT_EQ(name_of(walk), "unknown");
  walk.programs_data = kSamples;
  EXPECT_EQ(name_of(walk), "unknown") << "it may be the collector's";
  walk.functions = {"rb_ary_store"};
  EXPECT_EQ(name_of(walk), "own writes");
}

TEST(Pattern, AnAllocatorIsToldByName) {
  for (const char* name : {"malloc", "free", "_int_free", "operator delete(void*)", "PyObject_Free",
                           "AllocSetAlloc", "je_free", "unlink_chunk.constprop.0",
                           "rb_wb_protected_newobj_of", "rb_transient_heap_alloc"}) {
    EXPECT_EQ(name_in({name}), "allocator free list") << name;
  }
  EXPECT_EQ(name_in({"fill_buffer", "malloc"}), "own writes") << "only innermost";
  for (const char* name : {"free_users_table", "mi_update", "tc_relax", "je_rank"})
    EXPECT_EQ(name_in({name}), "own writes") << name;
}

TEST(Pattern, ACounterBesideSharedPtrsIsNoneOfTheirs) {
  const auto shared_ptrs = [](const std::string&, CounterField field) -> std::size_t {
    return field == CounterField{8, 4} || field == CounterField{12, 4} ? 50 : 0;
  };
  const auto in_the_same_type = [&](std::int64_t displacement, std::uint64_t samples) {
    StoreSite site = reference_count();
    site.store.displacement = displacement;
    site.store.width = 4;
    site.like_the_last = samples;
    return find_patterns({site}, shared_ptrs).at(0).pattern;
  };
  EXPECT_EQ(in_the_same_type(8, kSamples - 1), "reference count");
  EXPECT_EQ(in_the_same_type(8, 0), "own writes") << "how often a shape was drawn";
  EXPECT_EQ(in_the_same_type(12, 0), "own writes") << "a value in a hash map";
}

TEST(Pattern, LocksAndFlags) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::exchange;
  EXPECT_EQ(name_of(site), "own writes") << "8 bytes: a sum, a pointer";
  site.store.width = 4;
  EXPECT_EQ(name_of(site), "lock or flag word");
  site.store.kind = StoreKind::modify;
  EXPECT_EQ(name_of(site), "own writes") << "xor with a value";
  site.store.changes_bit = true;
  EXPECT_EQ(name_of(site), "lock or flag word");
  site.store.changes_bit = false;
  site.store.locked = true;
  EXPECT_EQ(name_of(site), "lock or flag word");
  EXPECT_EQ(name_in({"pthread_mutex_lock"}), "lock or flag word");
}

TEST(Pattern, BulkStoresComeRunning) {
  StoreSite site = plain_site();
  site.store.kind = StoreKind::fill;
  site.store.width = 32;
  EXPECT_EQ(name_of(site), "own writes") << "an object of some words is cleared";
  site.at_page_begin = kSamples;
  EXPECT_EQ(name_of(site), "bulk fill");
  site.store.kind = StoreKind::copy;
  EXPECT_EQ(name_of(site), "own writes") << "results of arithmetic";
  site.module = "/usr/lib/x86_64-linux-gnu/libc.so.6";
  EXPECT_EQ(name_of(site), "bulk copy");
  site.module = "/usr/bin/program";
  site.store.kind = StoreKind::vector;
  EXPECT_EQ(name_of(site), "own writes");
  site.functions = {"__memset_avx2_unaligned"};
  EXPECT_EQ(name_of(site), "bulk fill");
  site.functions = {"__memmove_avx_unaligned_erms"};
  EXPECT_EQ(name_of(site), "bulk copy");
  site.at_page_begin = 0;
  EXPECT_EQ(name_of(site), "own writes");
  site.near_page_begin = kSamples;
  EXPECT_EQ(name_of(site), "bulk copy") << "of blocks";
  StoreSite few = site;
  few.samples = few.copies = few.near_page_begin = 3;
  EXPECT_EQ(find_patterns({few}, releases).at(0).pattern, "own writes") << "by chance";
  few.module = "/usr/lib/x86_64-linux-gnu/libc.so.6";
  EXPECT_EQ(find_patterns({few}, releases).at(0).pattern, "own writes") << "by the program's call";
  few.functions = {"strtok_r"};
  EXPECT_EQ(find_patterns({few}, releases).at(0).pattern, "unknown");
  site.near_page_begin = 0;
  site.at_page_end = kSamples;
  EXPECT_EQ(name_of(site), "bulk copy") << "from the end";
  site.functions = {"__memset_avx2_unaligned"};
  EXPECT_EQ(name_of(site), "own writes") << "has no reason to come from there";
  site.functions = {"__memmove_avx_unaligned_erms"};
  site.at_page_end = 0;
  site.store.streams = true;
  EXPECT_EQ(name_of(site), "bulk copy") << "of megabytes";
  site.functions = {"transform_pixels"};
  EXPECT_EQ(name_of(site), "own writes");
  StoreSite repeated = plain_site();
  repeated.store.kind = StoreKind::fill;
  repeated.store.remaining = 64;
  EXPECT_EQ(name_of(repeated), "own writes");
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
  EXPECT_EQ(name_after([](StoreSite& program) { program.in_file = kSamples; }), "own writes");
}

TEST(Pattern, TheStackAndTheKernel) {
  EXPECT_EQ(name_after([](StoreSite& site) { site.store.kind = StoreKind::push; }), "stack");
  EXPECT_EQ(name_after([](StoreSite& site) { site.near_stack_pointer = kSamples; }), "stack");
  const auto by_kernel = [](StoreSite& site) {
    site.store = {};
    site.system_call = "read";
  };
  EXPECT_EQ(name_after(by_kernel), "system call");
}

TEST(Pattern, WhatIsWrittenWhileTheProgramEndsIsApart) {
  StoreSite site = reference_count();
  site.at_exit = {75, 75};
  const auto patterns = find_patterns({site}, releases);
  ASSERT_EQ(patterns.size(), 2U);
  EXPECT_EQ(patterns[0].pattern, "program exit");
  EXPECT_EQ(patterns[0].share, 0.75);
  EXPECT_EQ(patterns[1].pattern, "reference count");
  EXPECT_THAT(patterns[1].evidence, HasSubstr("25 of 100 samples; +1 in 25, -1 in 0"));
}

TEST(Pattern, AnInstructionThatCouldNotBeReadIsUnknownWhateverItsFunction) {
  const auto unread = [](StoreSite& site) {
    site.store = {};
    site.functions = {"free"};
  };
  EXPECT_EQ(name_after(unread), "unknown");
  const auto near_stack = [](StoreSite& site) {
    site.store = {};
    site.near_stack_pointer = kSamples;
  };
  EXPECT_EQ(name_after(near_stack), "stack") << "the address says it";
}

TEST(Pattern, SharesAddUpAndTheEvidenceNamesTheTopSite) {
  StoreSite up = reference_count();
  up.samples = up.copies = up.aligned = 60;
  StoreSite down = reference_count();
  down.store.amount = -1;
  down.store.text = "sub qword ptr [rax], 1";
  down.samples = down.copies = down.aligned = 20;
  StoreSite other = plain_site();
  other.samples = other.copies = 20;
  const auto patterns = find_patterns({other, down, up}, releases);
  ASSERT_EQ(patterns.size(), 2U);
  EXPECT_EQ(patterns[0].pattern, "reference count");
  EXPECT_EQ(patterns[0].samples, 80U);
  EXPECT_DOUBLE_EQ(patterns[0].share, 0.8);
  EXPECT_EQ(patterns[0].evidence,
            "add qword ptr [rdx], 1 (program) and 1 more: 80 of 100 samples; +1 in 60, -1 in 20, "
            "at 16-byte aligned objects; 50 places of program release");
  EXPECT_EQ(patterns[1].pattern, "own writes");
  EXPECT_DOUBLE_EQ(patterns[1].share, 0.2);
}

}  // namespace
}  // namespace cowshed::cow
