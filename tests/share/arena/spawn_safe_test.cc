#include <cowshed/share/spawn_safe.h>
#include <cowshed/share/workers/function.h>
#include <cowshed/tests/share/share.h>

// Checked by the compiler alone.
namespace cowshed {
namespace {

struct Plain {
  Plain* next;
  int value;
};
struct Virtual {
  virtual ~Virtual() = default;
};
struct Unknown {
  Unknown() = default;
  Unknown(const Unknown&) {}
};
struct OptedIn {
  OptedIn() = default;
  OptedIn(const OptedIn&) {}
};
struct OptedOut {
  void (*call)();
};

template <class T>
using InArena = ArenaAllocator<T>;
using Word = std::basic_string<char, std::char_traits<char>, InArena<char>>;
template <class T>
using Vector = std::vector<T, InArena<T>>;
template <class T, class Less = std::less<>>
using Map = std::map<Word, T, Less, InArena<std::pair<const Word, T>>>;

// As many a hash table has.
template <class T, bool keeps_hash, class Equal = std::equal_to<>>
struct Set : Vector<T> {
  using key_equal = Equal;
};
struct Derived : Vector<int> {
  std::string name;
};

}  // namespace

template <>
inline constexpr bool spawn_safe<OptedIn> = true;
template <>
inline constexpr bool spawn_safe<OptedOut> = false;

static_assert(spawn_safe<int> && spawn_safe<const double> && spawn_safe<Plain>);
static_assert(spawn_safe<int[3]> && spawn_safe<const int[3]> && spawn_safe<std::array<Plain, 2>>);
static_assert(spawn_safe<std::pair<int, Word>> && spawn_safe<std::tuple<int, Word, Plain>>);
static_assert(spawn_safe<std::optional<Word>> && spawn_safe<std::variant<int, Word>>);
static_assert(spawn_safe<Word> && spawn_safe<Vector<Word>> && spawn_safe<Vector<Vector<Word>>>);
static_assert(spawn_safe<Map<int>> && spawn_safe<Map<Vector<Word>>>);
static_assert(
    spawn_safe<std::deque<Word, InArena<Word>>> && spawn_safe<std::list<Word, InArena<Word>>> &&
    spawn_safe<std::set<Word, std::less<>, InArena<Word>>> &&
    spawn_safe<std::multiset<Word, std::less<>, InArena<Word>>> &&
    spawn_safe<std::multimap<int, Word, std::less<>, InArena<std::pair<const int, Word>>>>);
static_assert(spawn_safe<std::unordered_set<int, std::hash<int>, std::equal_to<>, InArena<int>>> &&
              spawn_safe<std::unordered_map<int, Word, std::hash<int>, std::equal_to<>,
                                            InArena<std::pair<const int, Word>>>>);
static_assert(spawn_safe<ImmortalPtr<Plain>> && spawn_safe<Vector<ImmortalPtr<const Word>>>);
static_assert(spawn_safe<OptedIn> && spawn_safe<Vector<OptedIn>>);

static_assert(spawn_safe<Set<Word, true>> && !spawn_safe<Set<Plain*, true>> &&
              !spawn_safe<Set<Word, true, bool (*)(const Word&, const Word&)>> &&
              !spawn_safe<Derived>);

static_assert(!spawn_safe<Virtual> && !spawn_safe<Unknown> && !spawn_safe<OptedOut>);
static_assert(!spawn_safe<Plain*> && !spawn_safe<void (*)()> && !spawn_safe<int Plain::*>);
static_assert(!spawn_safe<std::span<int>> && !spawn_safe<std::string_view> &&
              !spawn_safe<std::reference_wrapper<Plain>>);
static_assert(!spawn_safe<std::optional<Plain*>> && !spawn_safe<std::array<Plain*, 2>> &&
              !spawn_safe<std::pair<int, Plain*>> && !spawn_safe<Vector<Plain*>>);
static_assert(!spawn_safe<std::string> && !spawn_safe<std::vector<int>> &&
              !spawn_safe<std::pmr::vector<int>> && !spawn_safe<std::pmr::string>);
static_assert(!spawn_safe<std::function<void()>> && !spawn_safe<std::shared_ptr<int>> &&
              !spawn_safe<std::unique_ptr<int>>);
static_assert(!spawn_safe<Map<int, bool (*)(const Word&, const Word&)>> &&
              !spawn_safe<Map<Virtual>> && !spawn_safe<ImmortalPtr<Virtual>>);

template <class T>
constexpr bool kRefsSafe = internal::RefsSpawnSafe<T>::value;
static_assert(kRefsSafe<Ref<Plain>> && kRefsSafe<std::vector<Ref<std::span<const Plain>>>> &&
              kRefsSafe<Channel<Ref<Plain>>> && kRefsSafe<std::map<std::string, Ref<OptedIn>>>);
static_assert(!kRefsSafe<Ref<Virtual>> && !kRefsSafe<std::vector<Ref<Virtual>>> &&
              !kRefsSafe<Channel<Ref<Virtual>>> && !kRefsSafe<std::map<int, Ref<std::string>>> &&
              !kRefsSafe<std::array<std::optional<Ref<Virtual>>, 2>>);

}  // namespace cowshed
