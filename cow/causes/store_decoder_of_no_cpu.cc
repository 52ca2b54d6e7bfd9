#include <cowshed/cow/causes/store_decoder.h>

// For CPUs on which cowtop counts without samples, so that there is no store to decode.
namespace cowshed::cow {

Expected<StoreDecoder> StoreDecoder::open() {
  return make_error(ErrorCode::unsupported, "stores of this CPU cannot be decoded");
}

StoreInstruction StoreDecoder::decode(std::span<const std::uint8_t> /*code*/,
                                      const StoreRegisters& /*registers*/,
                                      std::uint64_t /*address*/, bool /*is_32_bit*/) const {
  return {};
}

}  // namespace cowshed::cow
