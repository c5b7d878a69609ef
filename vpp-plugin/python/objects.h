// Mapped shared objects with their errors, for readers and writers in Python.
#pragma once

#include <sys/types.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "lbrl/shm.h"

namespace penstock
{

// Adds ShmError to the module.
void register_errors(nb::module_ &m);

[[noreturn]] void raise_shm(int code, const std::string &message);
// "PATH: FIELD is FOUND, expected EXPECTED: what to do"
[[noreturn]] void raise_problem(const std::string &path, const lbrl_shm_problem_t &problem);
[[noreturn]] void raise_code(const std::string &path, int code);
[[noreturn]] void raise_errno(const std::string &path);

// A file mapped as it was when it was opened. Its size is looked at again before each use, because
// touching a page that truncation took away kills the process. No descriptor is kept: there may be more
// objects than a process may have open files.
class Mapping
{
  public:
    static Mapping open_existing(const std::string &path, bool writable);
    // A preallocated file of zeros, under a name that does not exist yet.
    static Mapping create(const std::string &path, size_t size);

    Mapping(Mapping &&other) noexcept;
    Mapping &operator=(Mapping &&other) noexcept;
    ~Mapping() { close(); }

    void close();
    // Throws when the mapping is closed, or the file at its path is gone, is another one, or has become
    // shorter than what is mapped.
    void check() const;
    // Whether another file has the path now.
    bool replaced() const;
    // The file has another path from now on.
    void renamed(const std::string &path) { path_ = path; }

    const std::string &path() const { return path_; }
    void *memory() const { return memory_; }
    size_t size() const { return size_; }

  private:
    Mapping(const std::string &path, int fd, bool writable);

    std::string path_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
    void *memory_ = nullptr;
    size_t size_ = 0;
};

// An object mapped read-only and its checked view.
class Object
{
  public:
    Object(const std::string &path, uint64_t magic);

    const lbrl_shm_view_t *view() const
    {
        mapping_.check();
        return &view_;
    }
    const lbrl_shm_header_t &header() const { return view_.header; }
    // Whether its writer has left the object, or another one has its name.
    bool retired() const { return mapping_.replaced() || lbrl_shm_retired(view()); }
    const std::string &path() const { return mapping_.path(); }
    void close() { mapping_.close(); }

    // The newest frame, in 64-bit words because lbrl_read wants it aligned.
    std::vector<uint64_t> read() const;
    const lbrl_shm_field_t *field(lbrl_shm_place_t place, const std::string &name, uint32_t type,
                                  uint32_t count) const;
    Vector<bool> bits(const std::vector<uint64_t> &frame, const std::string &name) const;

    // A column of a copied frame.
    template <typename T>
    Vector<T> column(const std::vector<uint64_t> &frame, const std::string &name,
                     uint32_t type) const
    {
        const uint32_t slots = header().slots;
        const lbrl_shm_field_t *place = field(LBRL_SHM_IN_FRAME, name, type, slots);
        auto values = std::make_unique<T[]>(slots);
        std::memcpy(values.get(), reinterpret_cast<const uint8_t *>(frame.data()) + place->offset,
                    slots * sizeof(T));
        return to_array<Vector<T>>(std::move(values), {slots});
    }

  private:
    Mapping mapping_;
    lbrl_shm_view_t view_;
};

} // namespace penstock
