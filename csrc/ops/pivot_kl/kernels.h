// The entry of each instruction set's kernels.
#pragma once

#include "ops/pivot_kl/pivot_kl.h"

namespace cvf::pivot_kl {

namespace baseline {
template <class T>
void run(const Arguments<T>& args, int threads);
}
namespace avx2 {
template <class T>
void run(const Arguments<T>& args, int threads);
}
namespace avx512 {
template <class T>
void run(const Arguments<T>& args, int threads);
}

}  // namespace cvf::pivot_kl
