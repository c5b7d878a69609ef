#include "objects.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <nanobind/stl/string.h>

namespace nb = nanobind;

namespace penstock
{
namespace
{

PyObject *shm_error; // the exception type; lives as long as the process

const char *reason_of(int code)
{
    switch (code) {
    case LBRL_SHM_TRUNCATED:
        return "truncated";
    case LBRL_SHM_FOREIGN:
        return "foreign";
    case LBRL_SHM_WRONG_ORDER:
        return "byte-order";
    case LBRL_SHM_OLDER:
        return "older";
    case LBRL_SHM_NEWER:
        return "newer";
    case LBRL_SHM_CORRUPT:
        return "corrupt";
    case LBRL_SHM_GONE:
        return "retired";
    case LBRL_SHM_EMPTY:
        return "empty";
    case LBRL_SHM_BUSY:
        return "busy";
    default:
        return "argument";
    }
}

[[noreturn]] void raise_errno_after_close(int fd, int code, const std::string &path)
{
    ::close(fd);
    errno = code;
    raise_errno(path);
}

} // namespace

void register_errors(nb::module_ &m)
{
    nb::dict attributes;
    attributes["reason"] = "";
    shm_error = PyErr_NewExceptionWithDoc(
        "penstock_core.ShmError",
        "A shared-memory object cannot be used; `reason` is truncated, foreign, byte-order, older, "
        "newer, corrupt, retired, empty, busy or argument.",
        PyExc_ValueError, attributes.ptr());
    if (!shm_error) {
        throw nb::python_error();
    }
    m.attr("ShmError") = nb::borrow(shm_error);
}

void raise_shm(int code, const std::string &message)
{
    nb::object error = nb::borrow(shm_error)(message);
    error.attr("reason") = reason_of(code);
    PyErr_SetObject(shm_error, error.ptr());
    throw nb::python_error();
}

void raise_problem(const std::string &path, const lbrl_shm_problem_t &problem)
{
    raise_shm(problem.code, path + ": " + problem.field + " is " + std::to_string(problem.found) +
                                ", expected " + std::to_string(problem.expected) + ": " +
                                lbrl_shm_error_text(problem.code));
}

void raise_code(const std::string &path, int code)
{
    raise_shm(code, path + ": " + lbrl_shm_error_text(code));
}

void raise_errno(const std::string &path)
{
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
}

Mapping Mapping::open_existing(const std::string &path, bool writable)
{
    int fd = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        raise_errno(path);
    }
    return Mapping(path, fd, writable);
}

Mapping Mapping::create(const std::string &path, size_t size)
{
    int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) {
        raise_errno(path);
    }
    // Whatever the umask: a data plane of another user reads it by its group.
    (void)::fchmod(fd, 0640);
    int code = ::posix_fallocate(fd, 0, static_cast<off_t>(size));
    if (code != 0) {
        ::unlink(path.c_str());
        raise_errno_after_close(fd, code, path);
    }
    return Mapping(path, fd, true);
}

Mapping::Mapping(const std::string &path, int fd, bool writable) : path_(path)
{
    struct stat status;
    if (::fstat(fd, &status) != 0) {
        raise_errno_after_close(fd, errno, path);
    }
    const auto size = static_cast<size_t>(status.st_size);
    if (size < sizeof(lbrl_shm_header_t)) {
        ::close(fd);
        raise_problem(path, {LBRL_SHM_TRUNCATED, "size", size, sizeof(lbrl_shm_header_t)});
    }
    const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    void *memory = ::mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        raise_errno_after_close(fd, errno, path);
    }
    ::close(fd);
    device_ = status.st_dev;
    inode_ = status.st_ino;
    memory_ = memory;
    size_ = size;
}

Mapping::Mapping(Mapping &&other) noexcept
    : path_(std::move(other.path_)), device_(other.device_), inode_(other.inode_),
      memory_(std::exchange(other.memory_, nullptr)), size_(other.size_)
{
}

Mapping &Mapping::operator=(Mapping &&other) noexcept
{
    std::swap(path_, other.path_);
    std::swap(device_, other.device_);
    std::swap(inode_, other.inode_);
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    return *this;
}

void Mapping::close()
{
    if (memory_) {
        ::munmap(std::exchange(memory_, nullptr), size_);
    }
}

bool Mapping::replaced() const
{
    struct stat status;
    return ::stat(path_.c_str(), &status) == 0 &&
           (status.st_dev != device_ || status.st_ino != inode_);
}

void Mapping::check() const
{
    if (!memory_) {
        raise_shm(LBRL_SHM_ARGUMENT, path_ + ": the object is closed; open it again");
    }
    struct stat status;
    if (::stat(path_.c_str(), &status) != 0) {
        raise_errno(path_);
    }
    if (status.st_dev != device_ || status.st_ino != inode_) {
        raise_code(path_, LBRL_SHM_GONE);
    }
    if (static_cast<size_t>(status.st_size) < size_) {
        raise_problem(path_,
                      {LBRL_SHM_TRUNCATED, "size", static_cast<uint64_t>(status.st_size), size_});
    }
}

Object::Object(const std::string &path, uint64_t magic)
    : mapping_(Mapping::open_existing(path, false))
{
    lbrl_shm_problem_t problem;
    if (lbrl_shm_open(&view_, mapping_.memory(), mapping_.size(), magic, &problem)) {
        raise_problem(path, problem);
    }
}

std::vector<uint64_t> Object::read() const
{
    std::vector<uint64_t> copy(header().frame_stride / sizeof(uint64_t));
    int code = lbrl_read(view(), copy.data(), copy.size() * sizeof(uint64_t));
    if (code) {
        raise_code(path(), code);
    }
    return copy;
}

const lbrl_shm_field_t *Object::field(lbrl_shm_place_t place, const std::string &name,
                                      uint32_t type, uint32_t count) const
{
    const lbrl_shm_field_t *found = lbrl_shm_find(&view_, place, name.c_str());
    if (!found || found->type != type || found->count != count) {
        raise_shm(LBRL_SHM_ARGUMENT, path() + ": the object has no field " + name +
                                         " of the expected type: use one of its feature level, or "
                                         "upgrade its writer");
    }
    return found;
}

Vector<bool> Object::bits(const std::vector<uint64_t> &frame, const std::string &name) const
{
    const uint32_t slots = header().slots;
    const auto *place = field(LBRL_SHM_IN_FRAME, name, LBRL_SHM_BITS, (slots + 63) / 64);
    auto values = std::make_unique<bool[]>(slots);
    const uint64_t *words = frame.data() + place->offset / sizeof(uint64_t);
    for (uint32_t slot = 0; slot < slots; slot++) {
        values[slot] = words[slot / 64] >> slot % 64 & 1;
    }
    return to_array<Vector<bool>>(std::move(values), {slots});
}

} // namespace penstock
