// numpy arrays that own a copy of what C returned.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <utility>

namespace penstock
{
namespace nb = nanobind;

template <typename T, typename... Shape> using Array = nb::ndarray<nb::numpy, T, Shape...>;
template <typename T> using Vector = Array<T, nb::ndim<1>>;
template <typename T> using Matrix = Array<T, nb::ndim<2>>;
template <typename T>
using Input = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Hands the buffer over to a new array of that shape.
template <typename Result>
Result to_array(std::unique_ptr<typename Result::Scalar[]> buffer,
                std::initializer_list<size_t> shape)
{
    using T = typename Result::Scalar;
    T *data = buffer.release();
    nb::capsule owner(data, [](void *memory) noexcept { delete[] static_cast<T *>(memory); });
    return Result(data, shape, owner);
}

} // namespace penstock
