#include <algorithm>
#include <cctype>
#include <cstring>
#include <stdexcept>

#include <cowshed/share/serialize.h>

namespace cowshed::internal {
namespace {

std::string one_line(const char* what) {
  std::string text(what);
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return text;
}

// What the standard library says of a count that is too large is of no use.
std::string reason(const std::exception& failure) {
  const bool allocation = dynamic_cast<const std::bad_alloc*>(&failure) != nullptr ||
                          dynamic_cast<const std::length_error*>(&failure) != nullptr;
  return allocation ? "a count beyond the memory there is" : one_line(failure.what());
}

}  // namespace

void throw_truncated(std::uint64_t wanted, std::uint64_t left) {
  throw std::runtime_error(std::to_string(wanted) + " more are announced, " + std::to_string(left) +
                           " bytes are left");
}

void throw_bad_encoding(const char* what) { throw std::runtime_error(what); }

void throw_too_deep() {
  throw std::runtime_error("more than " + std::to_string(kMaxSerializedDepth) +
                           " objects inside one another; make a container of them");
}

std::uint64_t encoding_id(const std::type_info& type) { return hash_type(type.name(), 0, 0); }

Error encode_error(std::string_view type, const std::exception& failure) {
  return {ErrorCode::invalid_argument, 0,
          readable_type(type) + " cannot be encoded: " + one_line(failure.what())};
}

Error decode_error(std::string_view type, std::size_t bytes, const std::exception& failure) {
  return {ErrorCode::bad_encoding, 0,
          "these " + std::to_string(bytes) + " bytes are no " + readable_type(type) + ": " +
              reason(failure) + "; they are damaged, or the sender has another definition of it"};
}

Expected<void> check_encoding(std::span<const std::byte> bytes, std::uint64_t id,
                              std::string_view type) {
  if (bytes.size() < sizeof id) {
    return tl::make_unexpected(
        decode_error(type, bytes.size(), std::runtime_error("an encoding has 8 at least")));
  }
  if (std::memcmp(bytes.data(), &id, sizeof id) != 0) {
    return make_error(ErrorCode::wrong_type, "these " + std::to_string(bytes.size()) +
                                                 " bytes do not begin as an encoding of " +
                                                 readable_type(type) +
                                                 ": another type was encoded, or none");
  }
  return {};
}

void SerializeReader::check_bools(const void* bools, std::size_t count) const {
  const auto* bytes = static_cast<const unsigned char*>(bools);
  if (std::any_of(bytes, bytes + count, [](unsigned char each) { return each > 1; })) {
    throw_bad_encoding("a bool that is neither true nor false");
  }
}

}  // namespace cowshed::internal
