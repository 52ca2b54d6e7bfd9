#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <type_traits>

#include <cowshed/share/collapse.h>
#include <cowshed/share/parcel_format.h>
#include <cowshed/share/ref.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace cowshed::parcel_format {
namespace {

constexpr std::uint64_t kEndOfAddresses = std::uint64_t{1} << 47U;
constexpr std::size_t kMostName = 63;
constexpr std::size_t kMostType = 4096;  // what is longer is cut off

struct Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t reserved;
  std::uint64_t checksum;  // of what follows
};

// A field after the other, in the order of the structs; a list begins with its length.
class Writer {
 public:
  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    const auto wide = static_cast<std::uint64_t>(value);
    append(&wide, sizeof wide);
  }

  void text(std::string_view value) {
    number(value.size());
    append(value.data(), value.size());
  }

  template <class T, class Function>
  void list(const std::vector<T>& values, Function function) {
    number(values.size());
    for (const T& value : values) {
      function(value);
    }
  }

  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  void append(const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }

  std::vector<std::byte> bytes_;
};

// The same back.  After the first field that cannot be, everything is 0 or empty, and ok() false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }
  void expect(bool condition) { ok_ = ok_ && condition; }

  // At most `most`.
  std::uint64_t number(std::uint64_t most = ~std::uint64_t{0}) {
    std::uint64_t value = 0;
    take(&value, sizeof value);
    expect(value <= most);
    return ok_ ? value : 0;
  }
  bool flag() { return number(1) == 1; }
  std::uint32_t word() { return static_cast<std::uint32_t>(number(~std::uint32_t{0})); }

  // A multiple of 2 MiB.
  std::uint64_t ranges(std::uint64_t most) {
    const std::uint64_t value = number(most);
    expect(value % kHugePage == 0);
    return ok_ ? value : 0;
  }

  std::string text(std::size_t most) {
    std::string value(number(std::min(most, bytes_.size())), '\0');
    take(value.data(), value.size());
    expect(value.find('\0') == std::string::npos);
    return value;
  }

  // Each element takes 8 bytes at least.
  template <class Function>
  void list(std::uint64_t most, Function function) {
    const std::uint64_t count = number(std::min<std::uint64_t>(most, bytes_.size() / 8));
    for (std::uint64_t i = 0; i < count && ok_; ++i) {
      function();
    }
  }

 private:
  void take(void* to, std::size_t size) {
    expect(size <= bytes_.size());
    if (ok_ && size > 0) {
      std::memcpy(to, bytes_.data(), size);
      bytes_ = bytes_.subspan(size);
    }
  }

  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

void write_description(Writer& writer, const ArenaCore::Description& arena) {
  writer.text(arena.name);
  writer.number(arena.begin);
  writer.number(arena.capacity);
  writer.number(arena.used);
  writer.number(arena.mode);
  writer.number(arena.generation);
  writer.number(arena.past.live_bytes);
  writer.number(arena.past.live_allocations);
  writer.number(arena.past.taken);
  writer.number(arena.past.on_disk);
  writer.number(arena.past.huge_page_error);
  for (const auto* runs : {&arena.past.small, &arena.past.holes}) {
    writer.list(*runs, [&](const Run& run) {
      writer.number(run.begin);
      writer.number(run.end);
    });
  }
  writer.list(arena.segments.segments(), [&](const Segment& segment) {
    writer.number(segment.run.end);
    writer.number(segment.fd);
    writer.number(segment.payload);
  });
}

ArenaCore::Description read_description(Reader& reader, std::uint32_t& next_file) {
  ArenaCore::Description arena;
  arena.name = reader.text(kMostName);
  arena.begin = reader.ranges(kEndOfAddresses - 1);
  arena.capacity = reader.ranges(kEndOfAddresses - arena.begin);
  arena.used = reader.ranges(arena.capacity);
  arena.mode = static_cast<FreezeMode>(reader.number(static_cast<unsigned>(FreezeMode::lenient)));
  arena.generation = reader.word();
  reader.expect(!arena.name.empty() && arena.begin > 0 && arena.capacity > 0 &&
                arena.generation > 0);
  arena.past.live_bytes = reader.number();
  arena.past.live_allocations = reader.number();
  arena.past.taken = reader.number();
  arena.past.on_disk = reader.number();
  arena.past.huge_page_error = static_cast<int>(reader.number(INT32_MAX));
  for (auto* runs : {&arena.past.small, &arena.past.holes}) {
    std::uint64_t before = 0;
    reader.list(arena.used / kHugePage, [&] {
      const Run run = {reader.ranges(arena.used), reader.ranges(arena.used)};
      reader.expect(run.begin >= before && run.begin < run.end);
      before = run.end;
      runs->push_back(run);
    });
  }
  std::vector<Segment> segments;
  std::uint32_t files = next_file;
  std::uint64_t begin = 0;
  reader.list(arena.used / kHugePage, [&] {
    const Run run = {begin, reader.ranges(arena.used)};
    const auto file = static_cast<std::uint32_t>(reader.number(files));
    const std::uint64_t payload = reader.ranges(kEndOfAddresses - 1);
    reader.expect(run.end > begin && file >= next_file);
    files = std::max(files, file + 1);
    segments.push_back({run, static_cast<int>(file), payload});
    begin = run.end;
  });
  reader.expect(begin == arena.used && files - next_file <= ArenaCore::kMostFiles);
  next_file = files;
  arena.segments = SegmentMap(std::move(segments));
  return arena;
}

void write_object(Writer& writer, const registry::Object& object) {
  writer.text(object.name);
  writer.text(std::string_view(object.type).substr(0, kMostType));
  writer.number(object.fingerprint);
  writer.number(object.type_size);
  writer.number(object.address);
  writer.number(object.bytes);
  writer.number(object.alignment);
  writer.number(object.array);
  writer.number(object.spawn_safe);
  writer.number(object.code);
  writer.number(object.slot);
  writer.number(object.generation);
  writer.number(object.publisher);
}

void read_reference(Reader& reader, registry::Object& object) {
  object.slot = static_cast<std::uint32_t>(reader.number(internal::kMaxPublished - 1));
  object.generation = reader.word();
  reader.expect(object.generation > 0);
}

registry::Object read_object(Reader& reader, const ArenaCore::Description& arena) {
  registry::Object object;
  object.name = reader.text(kMostName);
  object.type = reader.text(kMostType);
  object.fingerprint = reader.number();
  object.type_size = reader.number();
  object.address = reader.number();
  object.bytes = reader.number();
  object.alignment = reader.number();
  object.array = reader.flag();
  object.spawn_safe = reader.flag();
  object.code = reader.number();
  read_reference(reader, object);
  object.publisher = static_cast<pid_t>(reader.number(INT32_MAX));
  const std::uint64_t offset = object.address - arena.begin;
  reader.expect(object.address >= arena.begin && offset <= arena.used &&
                object.bytes <= arena.used - offset && std::has_single_bit(object.alignment) &&
                object.address % object.alignment == 0 &&
                (object.array || object.bytes == object.type_size));
  return object;
}

tl::unexpected<Error> bad(const std::string& what) {
  return make_error(ErrorCode::bad_parcel,
                    "what was received " + what + "; send arenas by send_arena()");
}

}  // namespace

std::uint32_t Contents::descriptors() const {
  std::size_t count = kFirstFile;
  for (const Arena& arena : arenas) {
    count += arena.description.segments.files().size();
  }
  return static_cast<std::uint32_t>(count);
}

std::vector<std::byte> write(const Contents& contents) {
  Writer writer;
  writer.bytes().resize(sizeof(Header));
  writer.number(contents.tree);
  writer.number(contents.last_generation);
  writer.list(contents.arenas, [&](const Contents::Arena& arena) {
    write_description(writer, arena.description);
    writer.list(arena.objects,
                [&](const registry::Object& object) { write_object(writer, object); });
  });
  writer.list(contents.lost, [&](const Contents::Lost& lost) {
    writer.text(lost.arena);
    writer.list(lost.objects, [&](const registry::Object& object) {
      writer.text(object.name);
      writer.number(object.slot);
      writer.number(object.generation);
    });
  });
  std::vector<std::byte> bytes = std::move(writer.bytes());
  const Header header = {kMagic, kVersion, 0,
                         XXH3_64bits(bytes.data() + sizeof(Header), bytes.size() - sizeof(Header))};
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

Expected<Contents> read(std::span<const std::byte> bytes) {
  Header header{};
  if (bytes.size() < sizeof header ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return bad("is not a parcel of arenas");
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kVersion) {
    return make_error(ErrorCode::unsupported,
                      "the parcel of arenas that was received has version " +
                          std::to_string(header.version) + ", this program reads version " +
                          std::to_string(kVersion) + "; build both with the same Cowshed");
  }
  const auto body = bytes.subspan(sizeof header);
  if (XXH3_64bits(body.data(), body.size()) != header.checksum) {
    return bad("is a damaged parcel of arenas (its checksum is wrong)");
  }
  Reader reader(body);
  Contents contents;
  contents.tree = reader.number();
  contents.last_generation = reader.word();
  std::uint32_t next_file = kFirstFile;
  reader.list(body.size(), [&] {
    Contents::Arena arena{read_description(reader, next_file), {}};
    reader.list(internal::kMaxPublished,
                [&] { arena.objects.push_back(read_object(reader, arena.description)); });
    contents.arenas.push_back(std::move(arena));
  });
  reader.list(body.size(), [&] {
    Contents::Lost lost{reader.text(kMostName), {}};
    reader.list(internal::kMaxPublished, [&] {
      registry::Object object;
      object.name = reader.text(kMostName);
      read_reference(reader, object);
      lost.objects.push_back(std::move(object));
    });
    contents.lost.push_back(std::move(lost));
  });
  if (!reader.ok() || !reader.at_end() || contents.tree == 0) {
    return bad("is a parcel of arenas that contradicts itself");
  }
  return contents;
}

}  // namespace cowshed::parcel_format
