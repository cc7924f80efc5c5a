// A second device for tests. Its tensors lie in host memory and the CPU's kernels compute them, yet to torch they are
// on another device: an operator that gets tensors of both devices refuses them, as CUDA's operators do.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <string_view>

namespace {

constexpr auto SECOND = c10::DeviceType::PrivateUse1;
const c10::Device HERE(SECOND, 0);
const c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);
int64_t operators_run = 0;

// ------------------------------------------------------------------------------------------------- memory and copies

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto found = c10::GetCPUAllocator()->allocate(bytes);
    found.unsafe_set_device(HERE);
    return found;
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetCPUAllocator()->raw_deleter(); }
  void copy_data(void* into, const void* from, size_t bytes) const override { default_copy_data(into, from, bytes); }
} memory;
REGISTER_ALLOCATOR(SECOND, &memory)

at::Tensor on_cpu(const at::Tensor& tensor) {  // the same bytes, to be read and written by the CPU
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), [tensor](void*) {},
                       tensor.options().device(c10::kCPU));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& into, bool) {
  at::AutoDispatchBelowAutograd below;
  on_cpu(into).copy_(on_cpu(from));
  return into;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& into) {
  if (into.sizes() != from.sizes()) into.resize_(from.sizes());
  return copy_from(from, into, false);
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, KEYS, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, KEYS, c10::dtype_or_default(dtype));
}

// ---------------------------------------------------------------------------------------------------- random numbers

struct Generator final : at::CPUGeneratorImpl {  // the CPU's, which says that it is of this device
  explicit Generator(uint64_t seed = c10::default_rng_seed_val) : CPUGeneratorImpl(seed) {
    device_ = HERE;
    key_set_ = KEYS;
  }
};

const at::Generator& default_generator() {
  static const at::Generator made = at::make_generator<Generator>();
  return made;
}

struct Lent {  // stands for a generator of the device while the CPU draws from it
  at::Generator device, cpu;
  explicit Lent(at::Generator of) : device(std::move(of)), cpu(at::detail::createCPUGenerator()) {
    cpu.set_state(device.get_state());
  }
  void give_back() { device.set_state(cpu.get_state()); }
};

// -------------------------------------------------------------------------------------------------- any other operator

bool may_mix(const std::string& name) {  // CUDA too takes indices that lie on the CPU
  static constexpr std::array<std::string_view, 3> names{"aten::index", "aten::index_put_", "aten::_index_put_impl_"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

void refuse_two_devices(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> arguments) {
  bool here = false, elsewhere = false;
  auto look = [&](const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return;
    if (tensor.device() == HERE) here = true;
    else if (tensor.dim() > 0 || written) elsewhere = true;  // a CPU's number may stand beside tensors of any device
  };
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    const bool written = alias && alias->isWrite();
    const auto& value = arguments[i];
    here |= value.isGenerator() && value.toGenerator().device() == HERE;
    if (value.isTensor()) look(value.toTensor(), written);
    if (value.isTensorList())
      for (const at::Tensor& each : value.toTensorVector()) look(each, written);
    if (value.isOptionalTensorList())
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector())
        if (each) look(*each, written);
  }
  TORCH_CHECK(!here || !elsewhere || may_mix(schema.name()), "Expected all tensors to be on the same device, but found ",
              "at least two devices, the second one and another! (", schema.name(), ")");
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  refuse_two_devices(schema, arguments);
  std::optional<Lent> lent;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = (*stack)[stack->size() - arguments.size() + i];
    if (schema.arguments()[i].type()->str().find("Generator") == std::string::npos) continue;
    auto given = value.isNone() ? default_generator() : value.toGenerator();
    TORCH_CHECK(given.device() == HERE, "Expected a generator of the second device, but found one of ", given.device(),
                " (", schema.name(), ")");
    lent.emplace(std::move(given));
    value = lent->cpu;
  }
  ++operators_run;
  at::native::cpu_fallback(op, stack);
  if (lent) lent->give_back();
}

// ----------------------------------------------------------------------------------------- what torch asks of a device

struct Guard final : c10::impl::DeviceGuardImplInterface {  // one device, one stream, no waiting
  c10::DeviceType type() const override { return SECOND; }
  c10::Device exchangeDevice(c10::Device) const override { return HERE; }
  c10::Device getDevice() const override { return HERE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream exchangeStream(c10::Stream) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), bytes);
  }
};
const bool hooked = (at::RegisterPrivateUse1HooksInterface(new Hooks), true);

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("resize_", at::native::resize_);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("set_.source_Storage", static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(at::native::set_));
  m.impl("set_", at::native::set_cpu_);
  // What torch would otherwise compose of other operators, or not know at all.
  for (auto* name : {"native_layer_norm", "native_group_norm", "embedding", "convolution", "convolution_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_FRAGMENT(second, m) {
  m.def("operators_run() -> int", [] { return operators_run; });
  m.def("generator() -> Generator?", [] { return std::optional(default_generator()); });
}

// Mixed precision as CUDA has it: torch's own lists of operators.
namespace at::autocast {
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define SINGLE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define SINGLE_OUT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(SINGLE)
  AT_FORALL_FP32_SET_OPT_DTYPE(SINGLE_OUT)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(WIDEST)
}
}  // namespace at::autocast
