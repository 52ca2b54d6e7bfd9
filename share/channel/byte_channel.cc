#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/byte_channel.h>
#include <cowshed/share/channel/commit.h>
#include <cowshed/share/channel/waiting.h>
#include <cowshed/share/wire/content.h>

namespace cowshed {

using namespace channel_layout;

void Bytes::take(Bytes& other) noexcept {
  block_ = std::exchange(other.block_, nullptr);
  size_ = std::exchange(other.size_, 0);
  segment_ = std::move(other.segment_);
  if (block_ == nullptr) {
    std::memcpy(small_.data(), other.small_.data(), std::min(size_, kSmall));
  } else {
    word_ = other.word_;
    index_ = other.index_;
    hand_ = other.hand_;
    sequence_ = other.sequence_;
  }
}

void Bytes::give_back() noexcept { internal::ByteChannel::give_back(*this); }

namespace internal {

// A message to write into a slot: bytes, or a block.
struct ByteChannel::Outgoing {
  std::span<const std::byte> small;
  std::uint32_t block = 0;   // 1 + the block's index; 0: the message is in `small`
  std::uint64_t queued = 0;  // the block's word once it is in the ring
  std::uint64_t size = 0;
  bool moved = false;
};

ByteChannel::ByteChannel(std::shared_ptr<ChannelSegment> segment)
    : segment_(std::move(segment)),
      copied_(segment_->row("bytes", TransferKind::value)),
      moved_(segment_->row("bytes", TransferKind::moved)) {}

Expected<Bytes> ByteChannel::loan(std::size_t size, const Wait& wait) {
  if (segment().closed()) return segment().closed_error();
  Bytes bytes;
  bytes.size_ = size;
  if (size <= Bytes::kSmall) {
    std::memset(bytes.small_.data(), 0, size);
    return bytes;
  }
  if (size > segment().plan().most_bytes) {
    return segment().error(ErrorCode::message_too_large,
                           ": " + std::to_string(size) + " bytes in one message, its memory is " +
                               std::to_string(segment().options().memory) +
                               "; create it with more");
  }
  Expected<ChannelSegment::Block> block = ChannelSegment::Block{};
  const auto attempt = [&] {
    if (segment().self() == 0) return Attempt::not_joined;
    block = segment().allocate(size);
    if (!block && block.error().code == ErrorCode::would_block) {
      segment().sweep_if_due();  // dead parties may own it
      block = segment().allocate(size);
    }
    return block || block.error().code != ErrorCode::would_block ? Attempt::done : Attempt::blocked;
  };
  TRY_VOID(retry(segment(), wait, Waiting::For::memory, attempt(), attempt));
  TRY(const ChannelSegment::Block mine, std::move(block));
  bytes.block_ = mine.data;
  bytes.index_ = mine.index;
  bytes.word_ = mine.word;
  bytes.segment_ = segment_;
  return bytes;
}

Expected<void> ByteChannel::send(std::span<const std::byte> bytes, const Wait& wait,
                                 const TransferRow* row) {
  Outgoing message;
  message.size = bytes.size();
  Bytes block;
  if (bytes.size() <= kSmallMessage) {
    message.small = bytes;
  } else {
    TRY(block, loan(bytes.size(), wait));
    std::memcpy(block.block_, bytes.data(), bytes.size());
    message.block = block.index_ + 1;
    message.queued = with_state(block.word_, BlockState::queued, segment().self());
  }
  TRY_VOID(send_slot(message, wait));
  std::byte* data = std::exchange(block.block_, nullptr);
  if (data != nullptr && !segment().keeps_memory(block.index_))
    segment().unmap_block(block.index_, data);
  (row == nullptr ? copied_ : *row).add(1, bytes.size());
  return {};
}

Expected<void> ByteChannel::send(Bytes&& bytes, const Wait& wait, const TransferRow* row) {
  const bool ours = bytes.block_ != nullptr && bytes.segment_ == segment_ &&
                    static_cast<PartyId>(bytes.word_ >> 32U) == segment().self();
  if (!ours) {
    auto sent = send(bytes.span(), wait, row);
    if (sent) bytes = Bytes();
    return sent;
  }
  __builtin_prefetch(&segment().word(bytes.index_), 1);  // not in cache after a long write
  Outgoing message;
  message.block = bytes.index_ + 1;
  message.queued = with_state(bytes.word_, BlockState::queued, segment().self());
  message.size = bytes.size_;
  message.moved = row == nullptr;
  TRY_VOID(send_slot(message, wait));
  segment().unmap_block(bytes.index_, std::exchange(bytes.block_, nullptr));
  (row == nullptr ? moved_ : *row).add(1, message.size);
  bytes = Bytes();
  return {};
}

Expected<void> ByteChannel::send_encoded(const std::function<void(Encoder&)>& encode,
                                         const Wait& wait, const TransferRow& row) {
  try {
    Encoder to = Encoder::in_memory();
    encode(to);
    Content content = to.finish();
    if (!content.descriptors().empty())
      throw std::runtime_error("it has an arena or a channel inside, which only start() can send");
    return send(content.view(), wait, &row);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (...) {
    return segment().error(ErrorCode::invalid_argument,
                           ": the message cannot be encoded: " + text_of_current_exception());
  }
}

tl::unexpected<Error> ByteChannel::decode_error() const {
  return segment().error(ErrorCode::bad_encoding,
                         ": a message cannot be decoded: " + text_of_current_exception());
}

Expected<void> ByteChannel::send_slot(const Outgoing& message, const Wait& wait) {
  std::uint64_t count = 1;
  const auto attempt = [&] {
    return segment().try_send(
        count, [&](std::uint64_t number, std::uint64_t) { write_slot(number, message); });
  };
  return retry(segment(), wait, Waiting::For::slot, attempt(), attempt);
}

void ByteChannel::write_slot(std::uint64_t number, const Outgoing& message) {
  auto* slot = reinterpret_cast<ByteSlot*>(segment().slot(number));
  Totals totals;
  if ((number & segment().plan().chunk_mask) != 0) totals = slot[-1].totals();
  else if (number != 0)
    totals = reinterpret_cast<const ByteSlot*>(segment().slot(number - 1))->totals();
  slot->write({message.size, message.block},
              {totals.bytes + message.size, totals.moved + (message.moved ? 1 : 0),
               totals.moved_bytes + (message.moved ? message.size : 0)});
  if (message.block == 0)
    std::copy_n(message.small.data(), message.size, slot->bytes.data());  // data() may be null
  else segment().word(message.block - 1).store(message.queued, std::memory_order_release);
}

Expected<Bytes> ByteChannel::receive(const Wait& wait) {
  Bytes bytes;
  std::uint64_t count = 1;
  int map_errno = 0;
  const auto attempt = [&] {
    return segment().try_receive(count, [&](std::uint64_t number, std::uint64_t) {
      return read_slot(number, bytes, map_errno);
    });
  };
  const Attempt first = try_spinning(segment(), wait, attempt);
  if (auto received = retry(segment(), wait, Waiting::For::message, first, attempt); !received) {
    return map_errno != 0 ? segment().map_error(bytes.index_, map_errno)
                          : tl::make_unexpected(std::move(received.error()));
  }
  if (bytes.block_ != nullptr) {
    bytes.segment_ = segment_;
    bytes.hand_ = segment().this_hand();
  }
  return bytes;
}

bool ByteChannel::read_slot(std::uint64_t number, Bytes& into, int& map_errno) {
  const auto* slot = reinterpret_cast<const ByteSlot*>(segment().slot(number));
  const ByteSlot::Head head = slot->read();
  if (!ByteSlot::is_possible(head, segment().plan().blocks)) return false;
  into.size_ = head.size;
  if (head.block == 0) {
    std::memcpy(into.small_.data(), slot->bytes.data(), head.size);
  } else {
    into.index_ = head.block - 1;
    std::byte* const data = segment().block_data(into.index_);
    if (data == nullptr) {
      map_errno = errno;
      return false;
    }
    into.word_ = segment().take_block(into.index_, head.size);
    if (into.word_ == 0) return false;
    into.block_ = data;
    into.sequence_ = number;
  }
  segment().control().received[(number + 1) % 2].totals.store(slot->totals());
  return true;
}

void ByteChannel::give_back(Bytes& bytes) noexcept {
  const auto segment = std::move(bytes.segment_);
  bytes.block_ = nullptr;
  // In a forked child the block is the parent's.
  if (segment == nullptr || static_cast<PartyId>(bytes.word_ >> 32U) != segment->self() ||
      segment->word(bytes.index_).load() != bytes.word_) {
    return;
  }
  if (bytes.hand_ != 0) {
    std::uint64_t mine = held(bytes.sequence_, 1);
    segment->control().hands[bytes.hand_ - 1].held.compare_exchange_strong(mine, 0);
  }
  segment->free_block(bytes.index_, bytes.word_);
}

}  // namespace internal
}  // namespace cowshed
