// The entry of each instruction set's kernels.
#pragma once

#include "common/kernel_entry.h"
#include "ops/sem_kl/sem_kl.h"

namespace cvf::sem_kl {

CVF_DECLARE_KERNEL(run, Arguments)

}  // namespace cvf::sem_kl
