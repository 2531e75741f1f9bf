// The entry of each instruction set's kernels.
#pragma once

#include "ops/sem_kl/sem_kl.h"

namespace cvf::sem_kl {

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

}  // namespace cvf::sem_kl
