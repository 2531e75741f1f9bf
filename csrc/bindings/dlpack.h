// What is used here of DLPack's C interface, version 1: https://dmlc.github.io/dlpack/latest/c_api.html.
//
// Tensor classes have a table of C functions, `__dlpack_c_exchange_api__`, by which a tensor is read and made in tens
// of nanoseconds, without linking PyTorch.
#pragma once

#include <cstdint>

namespace cvf::bindings::dlpack {

inline constexpr uint32_t kMajorVersion = 1;
inline constexpr int32_t kCpu = 1;
inline constexpr int32_t kCuda = 2;

struct Device {
  int32_t type;
  int32_t index;
};

struct DataType {
  uint8_t code;  // 0: signed integer, 2: floating point, 6: boolean
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t dims;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct Version {
  uint32_t major;
  uint32_t minor;
};

// A tensor with its owner, who is told by `deleter` that it is no longer needed.
struct ManagedTensor {
  Version version;
  void* owner;
  void (*deleter)(ManagedTensor*);
  uint64_t flags;
  Tensor tensor;
};

// Functions return 0, or -1 with an exception of Python set.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;  // of an older version, or null
  int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*export_tensor)(void* object, ManagedTensor** out);
  int (*import_tensor)(ManagedTensor* tensor, void** object);
  int (*view)(void* object, Tensor* out);  // valid as long as the object is
  int (*current_stream)(int32_t device_type, int32_t device_index, void** out);
};

}  // namespace cvf::bindings::dlpack
